package keys

import (
	"errors"
	"fmt"
	"os"
)

// Files are the key files that kube-controller-manager and kube-apiserver have flags for.
type Files struct {
	// PrivateKeyFile holds the signing key (--service-account-private-key-file).
	PrivateKeyFile string
	// KeyFiles hold more keys that verify (--service-account-key-file).
	KeyFiles []string
}

func (f Files) paths() []string { return append([]string{f.PrivateKeyFile}, f.KeyFiles...) }

// Load reads all files. Its error joins the errors of all bad files, each of which names the
// flag and the file.
func (f Files) Load() (*Set, error) {
	signing, errSigning := parseFile("--service-account-private-key-file", f.PrivateKeyFile, ParsePrivate)
	verification, errVerification := f.loadKeyFiles()
	if err := errors.Join(errSigning, errVerification); err != nil {
		return nil, err
	}
	return NewSet(signing, verification...), nil
}

func (f Files) loadVerification() (*Set, error) {
	verification, err := f.loadKeyFiles()
	if err != nil {
		return nil, err
	}
	return NewVerificationSet(verification...), nil
}

func (f Files) loadKeyFiles() ([]PublicKey, error) {
	var errs []error
	var verification []PublicKey
	for _, path := range f.KeyFiles {
		found, err := parseFile("--service-account-key-file", path, ParsePublic)
		errs = append(errs, err)
		verification = append(verification, found...)
	}
	return verification, errors.Join(errs...)
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
