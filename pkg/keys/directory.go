package keys

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Directory is the path of a key directory (--key-dir): one file per key, whose name has the
// state of the key ([Entry.FileName]). Files that begin with a dot are ignored.
type Directory string

// Load reads the keys. A directory without a signing key is an error. Errors name the flag,
// the directory and each bad file.
func (d Directory) Load() (*Set, error) { return d.load((*Keyring).Set) }

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

// Keyring reads all keys with their states. The errors are as those of [Directory.Load]; an
// empty directory is none.
func (d Directory) Keyring() (*Keyring, error) {
	files, err := d.read()
	for tries := 0; errors.Is(err, fs.ErrNotExist) && tries < 3; tries++ {
		files, err = d.read() // a file was renamed after the directory was listed
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

// withoutPath returns err without the path, for an error that already has it.
func withoutPath(err error) error {
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		return pathErr.Err
	}
	return err
}
