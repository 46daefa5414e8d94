package keys

import (
	"errors"
	"fmt"
	"os"
)

// Files are the key files of the flags that kube-controller-manager and
// kube-apiserver know. Load them again to follow a change (package reload).
type Files struct {
	// PrivateKeyFile holds the signing key (--service-account-private-key-file).
	PrivateKeyFile string
	// KeyFiles hold more keys that are verified (--service-account-key-file).
	KeyFiles []string
}

// Paths are all files, for watching.
func (f Files) Paths() []string { return append([]string{f.PrivateKeyFile}, f.KeyFiles...) }

// Load reads the files. Its error joins one per bad file, each naming flag and file.
func (f Files) Load() (*Set, error) {
	var errs []error
	signing, err := parseFile("--service-account-private-key-file", f.PrivateKeyFile, ParsePrivate)
	errs = append(errs, err)
	var verification []PublicKey
	for _, path := range f.KeyFiles {
		found, err := parseFile("--service-account-key-file", path, ParsePublic)
		errs = append(errs, err)
		verification = append(verification, found...)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return NewSet(signing, verification...), nil
}

func parseFile[T any](flag, path string, parse func([]byte) (T, error)) (T, error) {
	data, err := os.ReadFile(path)
	if err == nil {
		var keys T
		if keys, err = parse(data); err == nil {
			return keys, nil
		}
		err = fmt.Errorf("%s: %w", path, err)
	}
	var none T
	return none, fmt.Errorf("%s: %w", flag, err)
}
