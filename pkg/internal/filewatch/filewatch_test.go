package filewatch_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"k8s.io/klog/v2/ktesting"

	"github.com/sakeeper/sakeeper/pkg/internal/filewatch"
	"github.com/sakeeper/sakeeper/pkg/testkit/leaks"
)

// deadline is for what must happen: far more than it takes, and less than the
// minute after which a poll would hide that a notification was missed.
const deadline = 50 * time.Second

// follower runs a Value over files. Every call of OnChange and OnError is an entry
// in calls; a test names them all, in order. Every Load is an entry in loads: what
// it read.
type follower struct {
	value *filewatch.Value[string]
	calls chan string
	loads chan string
	// duringLoad is run by the next Load after it read the files.
	duringLoad atomic.Pointer[func()]
}

// newFollower starts Run and returns when it watches. A file whose content begins
// with "bad " cannot be loaded; what follows is the reason. Upper and lower case
// are equal. When the test ends so does Run, and no goroutine may be left.
func newFollower(t *testing.T, files ...string) *follower {
	t.Helper()
	return follow(t, filewatch.Config[string]{Files: files})
}

func follow(t *testing.T, cfg filewatch.Config[string]) *follower {
	t.Helper()
	before := goleak.IgnoreCurrent()
	f := &follower{calls: make(chan string, 100), loads: make(chan string, 1000)}
	var err error
	cfg.What, cfg.Describe, cfg.Equal = "test value", func(value string) string { return value }, strings.EqualFold
	cfg.Load = func() (string, error) {
		files := slices.Clone(cfg.Files)
		for _, dir := range cfg.Dirs {
			found, err := filepath.Glob(filepath.Join(dir, "[^.]*"))
			if err != nil {
				return "", err
			}
			files = append(files, found...)
		}
		return f.load(files)
	}
	f.value, err = filewatch.New(cfg)
	mustDo(t, err)
	first := <-f.loads
	f.value.OnChange(func() { f.calls <- "changed to " + f.value.Get() })
	f.value.OnError(func(err error) { f.calls <- err.Error() })

	_, ctx := ktesting.NewTestContext(t)
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- f.value.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			mustDo(t, err)
		case <-time.After(deadline):
			t.Fatal("Run did not return when its context ended")
		}
		close(f.calls)
		for call := range f.calls {
			t.Errorf("call that the test does not expect: %q", call)
		}
		leaks.None(t, before)
	})
	f.expectLoad(t, first) // Run watches, then loads
	return f
}

func (f *follower) load(files []string) (string, error) {
	var contents []string
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		contents = append(contents, string(data))
	}
	if hook := f.duringLoad.Swap(nil); hook != nil {
		(*hook)()
	}
	f.loads <- strings.Join(contents, "+")
	for _, content := range contents {
		if reason, bad := strings.CutPrefix(content, "bad "); bad {
			return "", errors.New(reason)
		}
	}
	return strings.Join(contents, "+"), nil
}

// expectLoad waits until Load has read this.
func (f *follower) expectLoad(t *testing.T, want string) {
	t.Helper()
	timeout := time.After(deadline)
	for {
		select {
		case got := <-f.loads:
			if got == want {
				return
			}
		case <-timeout:
			t.Fatalf("%q was not loaded", want)
		}
	}
}

// expectCall wants this call and no other before it but those of between: for values that are
// half-written, which are loaded if the writer is slow.
func (f *follower) expectCall(t *testing.T, want string, between ...string) {
	t.Helper()
	timeout := time.After(deadline)
	for {
		select {
		case got := <-f.calls:
			if got == want {
				return
			}
			if !slices.Contains(between, got) {
				t.Fatalf("call %q, want %q", got, want)
			}
		case <-timeout:
			t.Fatalf("no call, want %q", want)
		}
	}
}

func (f *follower) expectValue(t *testing.T, want string) {
	t.Helper()
	if got := f.value.Get(); got != want {
		t.Errorf("value %q, want %q", got, want)
	}
}

func mustDo(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// mustWrite makes or replaces a file in one step, so that no load sees half of it.
func mustWrite(t *testing.T, path, content string) {
	t.Helper()
	mustDo(t, os.MkdirAll(filepath.Dir(path), 0o700))
	mustDo(t, os.WriteFile(path+"_tmp", []byte(content), 0o600))
	mustDo(t, os.Rename(path+"_tmp", path))
}

// mustLink makes or swaps a symlink in one step, as kubelet does.
func mustLink(t *testing.T, target, link string) {
	t.Helper()
	mustDo(t, os.Symlink(target, link+"_tmp"))
	mustDo(t, os.Rename(link+"_tmp", link))
}

func TestNewRequiresAWholeConfigAndAGoodFirstValue(t *testing.T) {
	errBoom := errors.New("boom")
	good := filewatch.Config[string]{
		What: "value", Files: []string{"file"},
		Load:     func() (string, error) { return "one", nil },
		Describe: func(value string) string { return value },
		Equal:    func(a, b string) bool { return a == b },
	}
	cases := map[string]struct {
		in   func(*filewatch.Config[string])
		want string
	}{
		"all of it":               {func(*filewatch.Config[string]) {}, ""},
		"no name":                 {func(c *filewatch.Config[string]) { c.What = "" }, "filewatch: What, Files or Dirs, Load, Describe and Equal are required"},
		"no files":                {func(c *filewatch.Config[string]) { c.Files = nil }, "filewatch: What, Files or Dirs, Load, Describe and Equal are required"},
		"no Load":                 {func(c *filewatch.Config[string]) { c.Load = nil }, "filewatch: What, Files or Dirs, Load, Describe and Equal are required"},
		"no Describe":             {func(c *filewatch.Config[string]) { c.Describe = nil }, "filewatch: What, Files or Dirs, Load, Describe and Equal are required"},
		"no Equal":                {func(c *filewatch.Config[string]) { c.Equal = nil }, "filewatch: What, Files or Dirs, Load, Describe and Equal are required"},
		"a first load that fails": {func(c *filewatch.Config[string]) { c.Load = func() (string, error) { return "", errBoom } }, "boom"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			cfg := good
			tc.in(&cfg)
			value, err := filewatch.New(cfg)
			if tc.want == "" {
				mustDo(t, err)
				if got := value.Get(); got != "one" {
					t.Errorf("value %q, want %q", got, "one")
				}
				return
			}
			if err == nil || err.Error() != tc.want || value != nil {
				t.Errorf("value %v, error %v, want %q", value, err, tc.want)
			}
		})
	}
}

func TestRunSeesAChangeHoweverItIsMade(t *testing.T) {
	cases := map[string]struct {
		change func(t *testing.T, file, content string)
		atOnce bool // there is no time at which the file has a part of the content
	}{
		"a write": {change: func(t *testing.T, file, content string) {
			mustDo(t, os.WriteFile(file, []byte(content), 0o600))
		}},
		"a write in small steps": {change: func(t *testing.T, file, content string) {
			f, err := os.OpenFile(file, os.O_WRONLY|os.O_TRUNC, 0o600)
			mustDo(t, err)
			for _, part := range strings.SplitAfter(content, "") {
				_, err := f.WriteString(part)
				mustDo(t, err)
			}
			mustDo(t, f.Close())
		}},
		"a rename over it": {mustWrite, true},
		"a rename from another directory": {atOnce: true, change: func(t *testing.T, file, content string) {
			other := filepath.Join(filepath.Dir(filepath.Dir(file)), "other", "file")
			mustWrite(t, other, content)
			mustDo(t, os.Rename(other, file))
		}},
		"a symlink in its place": {atOnce: true, change: func(t *testing.T, file, content string) {
			target := filepath.Join(filepath.Dir(filepath.Dir(file)), content, "file")
			mustWrite(t, target, content)
			mustLink(t, target, file)
		}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "dir", "file")
			mustWrite(t, file, "one")
			f := newFollower(t, file)
			for _, content := range []string{"two", "three"} {
				tc.change(t, file, content)
				var between []string
				for i := 0; i < len(content) && !tc.atOnce; i++ {
					between = append(between, "changed to "+content[:i])
				}
				f.expectCall(t, "changed to "+content, between...)
				f.expectValue(t, content)
			}
		})
	}
}

// The layout is that of a Secret that kubelet mounts: file -> ..data/file and
// ..data -> a directory per version, of which kubelet removes the old one.
func TestRunFollowsKubelet(t *testing.T) {
	mount := t.TempDir()
	file, data := filepath.Join(mount, "file"), filepath.Join(mount, "..data")
	mustWrite(t, filepath.Join(mount, "..2024_0", "file"), "0")
	mustDo(t, os.Symlink("..2024_0", data))
	mustDo(t, os.Symlink(filepath.Join("..data", "file"), file))
	f := newFollower(t, file)
	for version := 1; version <= 3; version++ {
		dir := fmt.Sprintf("..2024_%d", version)
		mustWrite(t, filepath.Join(mount, dir, "file"), fmt.Sprint(version))
		mustLink(t, dir, data)
		if version > 1 { // the first old version stays, as if kubelet died
			mustDo(t, os.RemoveAll(filepath.Join(mount, fmt.Sprintf("..2024_%d", version-1))))
		}
		f.expectCall(t, fmt.Sprint("changed to ", version))
		f.expectValue(t, fmt.Sprint(version))
	}
}

func TestRunSeesAChangeOfASymlinksTarget(t *testing.T) {
	file, target := filepath.Join(t.TempDir(), "file"), filepath.Join(t.TempDir(), "target")
	mustWrite(t, target, "one")
	mustDo(t, os.Symlink(target, file))
	f := newFollower(t, file)
	mustWrite(t, target, "two")
	f.expectCall(t, "changed to two")
}

// TestEveryFileOfADirectoryMatters: what comes, goes, is renamed, is written again.
func TestEveryFileOfADirectoryMatters(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) { mustDo(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600)) }
	write("b", "first")
	f := follow(t, filewatch.Config[string]{Dirs: []string{dir}})
	before := f.value.ReadAt()

	write("a", "came")
	f.expectCall(t, "changed to came+first", "changed to +first")
	mustDo(t, os.Rename(filepath.Join(dir, "a"), filepath.Join(dir, "c")))
	f.expectCall(t, "changed to first+came")
	write("b", "again")
	f.expectCall(t, "changed to again+came", "changed to +came")
	write("b", "bad reason")
	f.expectCall(t, "reason", "changed to +came")
	good := f.value.ReadAt()
	if !good.After(before) {
		t.Errorf("read at %v, and before at %v", good, before)
	}
	mustDo(t, os.WriteFile(filepath.Join(dir, ".c"), []byte("bad too"), 0o600))
	mustDo(t, os.Rename(filepath.Join(dir, ".c"), filepath.Join(dir, "c")))
	f.expectLoad(t, "bad reason+bad too")
	if got := f.value.ReadAt(); !got.Equal(good) {
		t.Errorf("what is bad counts as read at %v, after %v", got, good)
	}
	write("c", "came")
	mustDo(t, os.Remove(filepath.Join(dir, "b")))
	f.expectCall(t, "changed to came", "open "+filepath.Join(dir, "b")+": no such file or directory") // a load may have begun
	f.expectValue(t, "came")
}

// TestADirectoryOfAMount: kubelet swaps the directory behind all names at once.
func TestADirectoryOfAMount(t *testing.T) {
	dir := t.TempDir()
	publish := func(version, content string) {
		mustDo(t, os.Mkdir(filepath.Join(dir, version), 0o700))
		mustDo(t, os.WriteFile(filepath.Join(dir, version, "key"), []byte(content), 0o600))
		mustDo(t, os.Symlink(version, filepath.Join(dir, "..data_tmp")))
		mustDo(t, os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
	}
	publish("..1", "first")
	mustDo(t, os.Symlink(filepath.Join("..data", "key"), filepath.Join(dir, "key")))
	f := follow(t, filewatch.Config[string]{Dirs: []string{dir}})
	publish("..2", "second")
	f.expectCall(t, "changed to second")
}
