package rotation

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sakeeper/sakeeper/pkg/keys"
)

// Directory is a [Store] in a directory of this machine. It is not safe for concurrent use; a
// lock file excludes other processes.
type Directory struct {
	path string
	lock *os.File
}

// OpenDirectory returns the store in the directory at path. It does not access the directory.
func OpenDirectory(path string) *Directory { return &Directory{path: path} }

// Begin implements [Store]: it makes the directory if it does not exist, locks it, and removes
// incomplete files. It returns an error if another process has the lock.
func (d *Directory) Begin(context.Context) error {
	if err := os.MkdirAll(d.path, 0o700); err != nil {
		return fmt.Errorf("--key-dir: %w", err)
	}
	var err error
	if d.lock, err = os.OpenFile(filepath.Join(d.path, ".lock"), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return fmt.Errorf("--key-dir: %w", err)
	}
	if unix.Flock(int(d.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return fmt.Errorf("--key-dir: %s: another 'sakeeper keys' is changing it; wait until that has ended", d.path)
	}
	parts, err := filepath.Glob(filepath.Join(d.path, temporary+"*"))
	for _, part := range parts { // of a command that was interrupted
		err = errors.Join(err, overwriteAndRemove(part))
	}
	err = errors.Join(err, d.chownToDirectoryOwner(d.lock))
	if err != nil {
		return fmt.Errorf("--key-dir: %w", err)
	}
	return nil
}

// Close implements [Store].
func (d *Directory) Close() error {
	if d.lock == nil {
		return nil
	}
	return d.lock.Close()
}

// Load implements [Store].
func (d *Directory) Load(context.Context) (*keys.Keyring, error) {
	return keys.Directory(d.path).Keyring()
}

// temporary is the prefix of files that are being written. Readers ignore them.
const temporary = ".new-"

// Apply implements [Store].
func (d *Directory) Apply(_ context.Context, change Change) error {
	if err := d.apply(change); err != nil {
		return fmt.Errorf("--key-dir: %w", err)
	}
	return nil
}

func (d *Directory) apply(change Change) error {
	file := func(name string) string { return filepath.Join(d.path, name) }
	if change.New != "" && change.Old != "" {
		old, err := os.ReadFile(file(change.Old))
		if err != nil {
			return err
		}
		if bytes.Equal(old, change.Content) {
			return errors.Join(os.Rename(file(change.Old), file(change.New)), d.sync())
		}
	}
	if change.New != "" {
		if err := d.write(file(change.New), change.Content); err != nil {
			return err
		}
	}
	if change.Old != "" {
		return errors.Join(d.erase(file(change.Old)), d.sync())
	}
	return nil
}

// write creates the whole file, or none.
func (d *Directory) write(path string, content []byte) error {
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("%s: %w", path, fs.ErrExist)
	}
	part, err := os.CreateTemp(d.path, temporary) // 0600
	if err != nil {
		return err
	}
	_, err = part.Write(content)
	err = errors.Join(err, d.chownToDirectoryOwner(part), part.Sync(), part.Close())
	if err == nil {
		err = os.Rename(part.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(part.Name()))
	}
	return d.sync()
}

// erase removes a file. A private half is hidden from readers and overwritten first, which
// has little effect on current disks, but costs nothing.
func (d *Directory) erase(path string) error {
	if !strings.HasSuffix(path, ".key") {
		return os.Remove(path)
	}
	hidden := filepath.Join(d.path, temporary+"erase")
	if err := errors.Join(os.Rename(path, hidden), d.sync()); err != nil {
		return err
	}
	return overwriteAndRemove(hidden)
}

// overwriteAndRemove overwrites a file with zeros and removes it.
func overwriteAndRemove(path string) error {
	if file, err := os.OpenFile(path, os.O_WRONLY, 0); err == nil {
		if info, err := file.Stat(); err == nil {
			_, _ = file.Write(make([]byte, info.Size()))
		}
		_ = errors.Join(file.Sync(), file.Close())
	}
	return os.Remove(path)
}

// chownToDirectoryOwner gives a file to the owner of the directory if root runs this command:
// the signer, which may run as another user, must be able to read the next key.
func (d *Directory) chownToDirectoryOwner(file *os.File) error {
	if os.Geteuid() != 0 {
		return nil
	}
	var info unix.Stat_t
	if err := unix.Stat(d.path, &info); err != nil {
		return err
	}
	return file.Chown(int(info.Uid), int(info.Gid))
}

// sync makes renames and removals durable.
func (d *Directory) sync() error {
	dir, err := os.Open(d.path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
