package agent

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sakeeper/sakeeper/pkg/testkit/leaks"
)

func TestMain(m *testing.M) {
	leaks.Main(m)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func mine() FileAccess { return FileAccess{Mode: 0o640, UID: -1, GID: -1} }

// writers returns both kinds of writers for files.
func writers() map[string]func(files ...string) Writer {
	return map[string]func(files ...string) Writer{
		"rename": func(...string) Writer { return RenameWriter{mine()} },
		"swap":   func(files ...string) Writer { return &SymlinkWriter{FileAccess: mine(), Files: files} },
	}
}

// content is a token of that number, of a length of its own.
func content(i int) []byte { return bytes.Repeat(fmt.Appendf(nil, "token-%d.", i), i+1) }

// expectFile checks content and permissions of a file.
func expectFile(t *testing.T, file string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(file)
	must(t, err)
	if !bytes.Equal(want, got) {
		t.Errorf("%s holds %q, want %q", file, got, want)
	}
	info, err := os.Stat(file)
	must(t, err)
	if info.Mode() != 0o640 {
		t.Errorf("%s has mode %v", file, info.Mode())
	}
}

// names returns what is in dir, with directories of tokens as "..2*".
func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	var list []string
	for _, entry := range entries {
		name := entry.Name()
		if strings.HasPrefix(name, "..2") {
			name = "..2*"
		}
		list = append(list, name)
	}
	return list
}

func TestFilesAreWritten(t *testing.T) {
	wants := map[string][]string{"rename": {"[a", "b", "other"}, "swap": {"..2*", "..data", "[a", "b", "other"}}
	for name, writer := range writers() {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			a, b := filepath.Join(dir, "[a"), filepath.Join(dir, "b")
			must(t, os.WriteFile(filepath.Join(dir, "other"), []byte("stays"), 0o600))
			must(t, os.WriteFile(a, []byte("a file of former times"), 0o600))
			w := writer(a, b)
			for i := range 3 {
				must(t, w.Check(a))
				must(t, w.Write(a, content(i)))
				must(t, w.Write(b, content(10+i)))
				expectFile(t, a, content(i))
				expectFile(t, b, content(10+i))
				if diff := cmp.Diff(wants[name], names(t, dir)); diff != "" {
					t.Errorf("the directory (-want +got):\n%s", diff)
				}
			}
			w = writer(a, b) // another process
			must(t, w.Write(a, content(20)))
			expectFile(t, a, content(20))
			expectFile(t, b, content(12))
			if diff := cmp.Diff(wants[name], names(t, dir)); diff != "" {
				t.Errorf("the directory (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReadersSeeOneTokenOrTheOther(t *testing.T) {
	for name, writer := range writers() {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "token")
			w := writer(file)
			must(t, w.Write(file, content(0)))
			const writes = 50
			valid := map[string]bool{}
			for i := range writes {
				valid[string(content(i))] = true
			}
			done := make(chan struct{})
			var readers sync.WaitGroup
			for range 2 {
				readers.Go(func() {
					for {
						select {
						case <-done:
							return
						default:
						}
						got, err := os.ReadFile(file)
						// A reader that has resolved the symlink before the swap may not find the target.
						if err != nil && (name != "swap" || !errors.Is(err, fs.ErrNotExist)) || err == nil && !valid[string(got)] {
							t.Errorf("read %q, %v", got, err)
							return
						}
					}
				})
			}
			for i := range writes {
				must(t, w.Write(file, content(i)))
			}
			close(done)
			readers.Wait()
		})
	}
}

func TestIncompleteFilesAreRemoved(t *testing.T) {
	for name, left := range map[string]string{"rename": ".token" + temporaryInfix + "123", "swap": "..2026_01_02_03_04_05.123/token"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			must(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, left)), 0o700))
			must(t, os.WriteFile(filepath.Join(dir, left), []byte("half a tok"), 0o600))
			file := filepath.Join(dir, "token")
			must(t, writers()[name](file).Check(file))
			if _, err := os.Stat(filepath.Join(dir, left)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s is still there: %v", left, err)
			}
		})
	}
}

func TestAnErrorLeavesTheOldContent(t *testing.T) {
	for name, writer := range writers() {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			other, taken := filepath.Join(dir, "other"), filepath.Join(dir, "taken")
			must(t, os.MkdirAll(filepath.Join(taken, "full"), 0o700)) // nothing can be renamed over it
			w := writer(other, taken)
			for _, written := range []bool{false, true} {
				if written {
					must(t, w.Write(other, content(1)))
				}
				before := names(t, dir)
				if err := w.Write(taken, content(2)); err == nil {
					t.Fatal("no error")
				}
				if written {
					expectFile(t, other, content(1))
				}
				if diff := cmp.Diff(before, names(t, dir)); diff != "" {
					t.Errorf("the directory (-before +after):\n%s", diff)
				}
			}
			none := filepath.Join(dir, "none", "token")
			if err := writer(none).Check(none); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("no directory: %v", err)
			}
		})
	}
}

func TestFilesGetTheirOwner(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root may give files away")
	}
	for name := range writers() {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "token")
			access := FileAccess{Mode: 0o640, UID: 12345, GID: 54321}
			var w Writer = RenameWriter{access}
			if name == "swap" {
				w = &SymlinkWriter{FileAccess: access, Files: []string{file}}
			}
			must(t, w.Write(file, content(1)))
			expectOwner(t, file, 12345, 54321)
		})
	}
}

func TestFilesThatAreNotInTheConfigAreRemoved(t *testing.T) {
	dir := t.TempDir()
	former, kept := filepath.Join(dir, "former"), filepath.Join(dir, "kept")
	must(t, os.WriteFile(filepath.Join(dir, "other"), []byte("of another program"), 0o600))
	w := &SymlinkWriter{FileAccess: mine(), Files: []string{former, kept}}
	must(t, w.Write(former, content(1)))
	must(t, w.Write(kept, content(2)))
	w = &SymlinkWriter{FileAccess: mine(), Files: []string{kept}}
	must(t, w.Write(kept, content(3)))
	if diff := cmp.Diff([]string{"..2*", "..data", "kept", "other"}, names(t, dir)); diff != "" {
		t.Errorf("the directory (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"kept"}, names(t, filepath.Join(dir, dataLink))); diff != "" {
		t.Errorf("what ..data has (-want +got):\n%s", diff)
	}
}

// TestADirectoryIsNoFile: Check returns an error, before a token is requested.
func TestADirectoryIsNoFile(t *testing.T) {
	for name, writer := range writers() {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := writer(dir).Check(dir); !errors.Is(err, syscall.EISDIR) {
				t.Errorf("error %v", err)
			}
		})
	}
}
