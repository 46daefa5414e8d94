package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Access is who may read the files.
type Access struct {
	Mode fs.FileMode
	// UID and GID are the owners; -1: those of this process.
	UID, GID int
}

// Rename is a [Writer] that renames a new file over the old one.
type Rename struct{ Access }

// unfinished is in the names of files that were not completed.
const unfinished = ".sakeeper-"

// Write implements [Writer].
func (r Rename) Write(file string, content []byte) error {
	dir, base := filepath.Split(file)
	dir = filepath.Clean(dir)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries { // of a process that was killed
		if strings.HasPrefix(entry.Name(), "."+base+unfinished) {
			_ = os.Remove(filepath.Join(dir, entry.Name()))
		}
	}
	f, err := os.CreateTemp(dir, "."+base+unfinished+"*")
	if err != nil {
		return err
	}
	if err := r.complete(f, content); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	if err := os.Rename(f.Name(), file); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return persist(dir)
}

// complete writes content to disk, for nobody else to read before all of it is there.
func (a Access) complete(f *os.File, content []byte) error {
	_, err := f.Write(content)
	if err == nil && (a.UID != -1 || a.GID != -1) {
		err = f.Chown(a.UID, a.GID)
	}
	if err == nil {
		err = f.Chmod(a.Mode)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// persist has the names in dir survive a crash.
func persist(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

const (
	// current is the symlink that is swapped; the files are symlinks through it. The
	// names are kubelet's.
	current = "..data"
	// stamp begins the names of directories with the files, as time.Format has it.
	stamp = "..2006_01_02_15_04_05."
)

// Swap is a [Writer] that swaps the symlink ..data, through which all files of their
// directory are reached, as kubelet does. All files of a directory must be written by
// the same Swap. It is safe for concurrent use.
type Swap struct {
	Access

	mu sync.Mutex
}

// Write implements [Writer].
func (s *Swap) Write(file string, content []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	dir, base := filepath.Split(file)
	dir = filepath.Clean(dir)
	next, err := os.MkdirTemp(dir, time.Now().UTC().Format(stamp))
	if err != nil {
		return err
	}
	former, err := os.Readlink(filepath.Join(dir, current))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(err, os.RemoveAll(next))
	}
	if err := s.fill(next, filepath.Join(dir, former), former != "", base, content); err != nil {
		return errors.Join(err, os.RemoveAll(next))
	}
	if err := link(filepath.Base(next), filepath.Join(dir, current)); err != nil {
		return errors.Join(err, os.RemoveAll(next))
	}
	if err := link(filepath.Join(current, base), file); err != nil {
		return err
	}
	return errors.Join(sweep(dir, filepath.Base(next)), persist(dir))
}

// fill makes next have content as base, and all else that former has.
func (s *Swap) fill(next, former string, had bool, base string, content []byte) error {
	if err := os.Chmod(next, 0o755); err != nil { //nolint:gosec // the files have modes of their own
		return err
	}
	if had {
		entries, err := os.ReadDir(former)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, entry := range entries {
			if entry.Name() == base {
				continue
			}
			if err := os.Link(filepath.Join(former, entry.Name()), filepath.Join(next, entry.Name())); err != nil {
				return err
			}
		}
	}
	f, err := os.OpenFile(filepath.Join(next, base), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(s.complete(f, content), persist(next))
}

// link makes name a symlink to target, whatever it was, at once.
func link(target, name string) error {
	if found, err := os.Readlink(name); err == nil && found == target {
		return nil
	}
	temporary := name + "_tmp"
	if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(target, temporary); err != nil {
		return err
	}
	if err := os.Rename(temporary, name); err != nil {
		return errors.Join(err, os.Remove(temporary))
	}
	return nil
}

// sweep removes directories that are not in use any more.
func sweep(dir, inUse string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, entry := range entries {
		name := entry.Name()
		if entry.IsDir() && name != inUse && strings.HasPrefix(name, "..2") {
			errs = append(errs, os.RemoveAll(filepath.Join(dir, name)))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove former tokens: %w", err)
	}
	return nil
}
