package agent

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// FileAccess is the mode and the owner of the files.
type FileAccess struct {
	// Mode is the mode of the files.
	Mode fs.FileMode
	// UID and GID are the owner and the group; -1 means those of this process.
	UID, GID int
}

// complete writes content to f, sets mode and owner, and syncs and closes f.
func (a FileAccess) complete(f *os.File, content []byte) error {
	_, err := f.Write(content)
	if err == nil && a.GID != -1 {
		err = f.Chown(-1, a.GID)
	}
	if err == nil {
		err = f.Chmod(a.Mode)
	}
	if err == nil && a.UID != -1 { // last: only the owner may do the rest
		err = f.Chown(a.UID, -1)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// checkReplaceable returns an error if file is a directory.
func checkReplaceable(file string) error {
	if info, err := os.Lstat(file); err == nil && info.IsDir() {
		return &fs.PathError{Op: "write", Path: file, Err: syscall.EISDIR}
	}
	return nil
}

// padding returns test content that is as long as a token can be.
func padding() []byte { return bytes.Repeat([]byte{' '}, 8<<10) }

// syncDirectory makes changes of the names in dir durable. Errors are ignored: after a crash
// the agent writes another token.
func syncDirectory(dir string) {
	if d, err := os.Open(dir); err == nil {
		_ = d.Sync()
		_ = d.Close()
	}
}

// RenameWriter is a [Writer] that renames a new file over the old one.
type RenameWriter struct{ FileAccess }

// temporaryInfix is in the names of files that are being written.
const temporaryInfix = ".sakeeper-"

// Check implements [Writer].
func (r RenameWriter) Check(file string) error {
	complete, err := r.stage(file, padding())
	if err != nil {
		return err
	}
	return os.Remove(complete)
}

// Write implements [Writer].
func (r RenameWriter) Write(file string, content []byte) error {
	complete, err := r.stage(file, content)
	if err != nil {
		return err
	}
	if err := os.Rename(complete, file); err != nil {
		return errors.Join(err, os.Remove(complete))
	}
	syncDirectory(filepath.Dir(file))
	return nil
}

// stage writes content to a file beside file, and returns its name.
func (r RenameWriter) stage(file string, content []byte) (complete string, err error) {
	if err := checkReplaceable(file); err != nil {
		return "", err
	}
	dir, base := filepath.Dir(file), filepath.Base(file)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	for _, entry := range entries { // left by a process that was killed; errors do not matter
		if strings.HasPrefix(entry.Name(), "."+base+temporaryInfix) {
			_ = os.Remove(filepath.Join(dir, entry.Name()))
		}
	}
	f, err := os.CreateTemp(dir, "."+base+temporaryInfix+"*")
	if err != nil {
		return "", err
	}
	if err := r.complete(f, content); err != nil {
		return "", errors.Join(err, os.Remove(f.Name()))
	}
	return f.Name(), nil
}

const (
	// dataLink is the symlink that is swapped; the files are symlinks through it. The names are
	// those of kubelet's AtomicWriter.
	dataLink = "..data"
	// dataDirLayout is the prefix of the directories with the files, as a layout of time.Format.
	dataDirLayout = "..2006_01_02_15_04_05."
)

// SymlinkWriter is a [Writer] that swaps the symlink ..data, through which all files of a
// directory are reached, as kubelet does. It is safe for concurrent use.
type SymlinkWriter struct {
	FileAccess

	// Files are all files that this writer writes. Other files behind ..data in the same
	// directories, of an earlier process, are removed. A directory must have only one
	// SymlinkWriter.
	Files []string

	mu sync.Mutex
}

// Check implements [Writer].
func (s *SymlinkWriter) Check(file string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	next, err := s.stage(file, padding())
	if err != nil {
		return err
	}
	return os.RemoveAll(next)
}

// Write implements [Writer].
func (s *SymlinkWriter) Write(file string, content []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	dir, base := filepath.Dir(file), filepath.Base(file)
	next, err := s.stage(file, content)
	if err != nil {
		return err
	}
	pointer := filepath.Join(dir, dataLink)
	former, _ := os.Readlink(pointer)
	if err := link(filepath.Base(next), pointer); err != nil {
		return errors.Join(err, os.RemoveAll(next))
	}
	if err := link(filepath.Join(dataLink, base), file); err != nil {
		if errRestore := restore(former, pointer); errRestore != nil {
			return errors.Join(err, errRestore)
		}
		return errors.Join(err, os.RemoveAll(next))
	}
	s.removeUnused(dir)
	syncDirectory(dir)
	return nil
}

// restore makes the symlink pointer point to former again.
func restore(former, pointer string) error {
	if former == "" {
		return os.Remove(pointer)
	}
	return link(former, pointer)
}

// stage makes a directory with content in a file of the same base name, and with the other
// files of the current directory that are in Files.
func (s *SymlinkWriter) stage(file string, content []byte) (next string, err error) {
	if err := checkReplaceable(file); err != nil {
		return "", err
	}
	dir, base := filepath.Dir(file), filepath.Base(file)
	s.removeUnused(dir)
	next, err = os.MkdirTemp(dir, time.Now().UTC().Format(dataDirLayout))
	if err != nil {
		return "", err
	}
	if err := s.fillDirectory(next, filepath.Join(dir, dataLink), base, content); err != nil {
		return "", errors.Join(err, os.RemoveAll(next))
	}
	return next, nil
}

func (s *SymlinkWriter) fillDirectory(next, former, base string, content []byte) error {
	if err := os.Chmod(next, 0o755); err != nil { //nolint:gosec // the files have their own modes
		return err
	}
	entries, err := os.ReadDir(former)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, entry := range entries {
		if name := entry.Name(); name != base && s.has(filepath.Join(filepath.Dir(former), name)) {
			if err := s.carryOver(filepath.Join(former, name), filepath.Join(next, name)); err != nil {
				return err
			}
		}
	}
	if err := s.create(filepath.Join(next, base), content); err != nil {
		return err
	}
	syncDirectory(next)
	return nil
}

// carryOver links a file, or copies it if the kernel does not allow to link a file of another
// user.
func (s *SymlinkWriter) carryOver(from, to string) error {
	if os.Link(from, to) == nil {
		return nil
	}
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return s.create(to, content)
}

func (s *SymlinkWriter) create(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return s.complete(f, content)
}

func (s *SymlinkWriter) has(file string) bool { return slices.Contains(s.Files, file) }

// link makes name a symlink to target, atomically.
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

// removeUnused removes old directories, and symlinks to files that are not in Files. Errors are
// ignored, such as for files of another user.
func (s *SymlinkWriter) removeUnused(dir string) {
	entries, _ := os.ReadDir(dir)
	inUse, _ := os.Readlink(filepath.Join(dir, dataLink))
	for _, entry := range entries {
		name := entry.Name()
		path := filepath.Join(dir, name)
		switch target, _ := os.Readlink(path); {
		case entry.IsDir() && name != inUse && strings.HasPrefix(name, "..2"):
			_ = os.RemoveAll(path)
		case target == filepath.Join(dataLink, name) && !s.has(path):
			_ = os.Remove(path)
		}
	}
}
