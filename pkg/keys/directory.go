package keys

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Directory is a key directory (--key-dir): one file per key, whose name says its
// state ([Member.Name]). Load it again to follow a change ([Directory.Open]).
type Directory string

// Load reads the set that signs. Its error names flag, directory and file.
func (d Directory) Load() (*Set, error) { return d.load((*Keyring).Set) }

// LoadVerification reads the set that verifies. Private halves are not needed.
func (d Directory) loadVerification() (*Set, error) { return d.load((*Keyring).VerificationSet) }

func (d Directory) load(set func(*Keyring) (*Set, error)) (*Set, error) {
	ring, err := d.Keyring()
	if err != nil {
		return nil, err
	}
	found, err := set(ring)
	if err != nil {
		return nil, fmt.Errorf("--key-dir: %s: %w", d, err)
	}
	return found, nil
}

// Ring reads all keys with their states.
func (d Directory) Keyring() (*Keyring, error) {
	files, err := d.read()
	for tries := 0; errors.Is(err, fs.ErrNotExist) && tries < 3; tries++ {
		files, err = d.read() // a file was renamed since the directory was listed
	}
	if err == nil {
		var ring *Keyring
		if ring, err = ParseKeyring(files); err == nil {
			return ring, nil
		}
	}
	return nil, fmt.Errorf("--key-dir: %s: %w", d, err)
}

func (d Directory) read() (map[string][]byte, error) {
	entries, err := os.ReadDir(string(d))
	if err != nil {
		return nil, withoutPath(err)
	}
	files := map[string][]byte{}
	for _, entry := range entries {
		name := entry.Name()
		if strings.HasPrefix(name, ".") || name == "lost+found" {
			continue
		}
		data, err := os.ReadFile(filepath.Join(string(d), name))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, withoutPath(err))
		}
		files[name] = data
	}
	return files, nil
}

// withoutPath is the reason alone, where the path is said already.
func withoutPath(err error) error {
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		return pathErr.Err
	}
	return err
}
