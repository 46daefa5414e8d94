package filewatch_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestABadFileKeepsTheLastGoodValue(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	mustWrite(t, file, "one")
	f := newFollower(t, file)

	mustWrite(t, file, "bad reason A")
	f.expectCall(t, "reason A")
	f.expectValue(t, "one")

	mustWrite(t, file, "bad reason B")
	f.expectCall(t, "reason B")
	f.expectValue(t, "one")

	mustDo(t, os.Remove(file))
	f.expectCall(t, "open "+file+": no such file or directory")
	f.expectValue(t, "one")

	mustWrite(t, file, "two")
	f.expectCall(t, "changed to two")
	f.expectValue(t, "two")

	// After a good value the same reason counts again.
	mustDo(t, os.Remove(file))
	f.expectCall(t, "open "+file+": no such file or directory")
	f.expectValue(t, "two")
}

func TestADirectoryThatIsGoneIsReported(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dir")
	file := filepath.Join(dir, "file")
	mustWrite(t, file, "one")
	f := newFollower(t, file)
	mustDo(t, os.Rename(dir, dir+"_gone"))
	f.expectCall(t, "open "+file+": no such file or directory")
	f.expectValue(t, "one")
}

func TestAReasonIsReportedOnce(t *testing.T) {
	file, other := filepath.Join(t.TempDir(), "file"), filepath.Join(t.TempDir(), "other")
	mustWrite(t, file, "one")
	mustWrite(t, other, "1")
	f := newFollower(t, file, other)
	mustWrite(t, file, "bad reason")
	f.expectCall(t, "reason")
	for _, content := range []string{"2", "3"} {
		mustWrite(t, other, content)
		f.expectLoad(t, "bad reason+"+content)
	}
	mustWrite(t, file, "two")
	f.expectCall(t, "changed to two+3")
}

func TestAnEqualValueCallsNothing(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	mustWrite(t, file, "one")
	f := newFollower(t, file)

	mustWrite(t, file, "one")
	f.expectLoad(t, "one")
	mustWrite(t, file, "ONE")
	f.expectLoad(t, "ONE")
	f.expectValue(t, "one")
	mustWrite(t, file, "bad reason")
	f.expectCall(t, "reason")
	mustWrite(t, file, "ONE")
	f.expectLoad(t, "ONE")

	mustWrite(t, file, "two")
	f.expectCall(t, "changed to two")
}

func TestEveryCallbackRuns(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	mustWrite(t, file, "one")
	f := newFollower(t, file)
	f.value.OnChange(func() { f.calls <- "second callback" })
	f.value.OnError(func(error) { f.calls <- "second callback" })
	mustWrite(t, file, "two")
	f.expectCall(t, "changed to two")
	f.expectCall(t, "second callback")
	mustWrite(t, file, "bad reason")
	f.expectCall(t, "reason")
	f.expectCall(t, "second callback")
}

// The package promises to see the swap of a symlink above the file, also when that
// symlink is a directory of the path and the old target stays.
func TestRunSeesTheSwapOfADirectoryAboveTheFile(t *testing.T) {
	dir := t.TempDir()
	for _, version := range []string{"v1", "v2", "v3"} {
		mustWrite(t, filepath.Join(dir, version, "file"), version)
	}
	mustLink(t, "v1", filepath.Join(dir, "current"))
	f := newFollower(t, filepath.Join(dir, "current", "file"))
	mustLink(t, "v2", filepath.Join(dir, "current"))
	f.expectCall(t, "changed to v2")
	mustLink(t, "v3", filepath.Join(dir, "current"))
	f.expectCall(t, "changed to v3")
	mustWrite(t, filepath.Join(dir, "v3", "file"), "v4")
	f.expectCall(t, "changed to v4")
}

// The new target of a symlink changes after it was read and before it is watched.
func TestRunSeesAChangeOfANewTargetDuringLoad(t *testing.T) {
	dir, targets := t.TempDir(), t.TempDir()
	file, target := filepath.Join(dir, "file"), filepath.Join(targets, "v2", "file")
	mustWrite(t, filepath.Join(targets, "v1", "file"), "one")
	mustWrite(t, target, "two")
	mustDo(t, os.Symlink(filepath.Join(targets, "v1", "file"), file))
	f := newFollower(t, file)
	hook := func() {
		if err := os.WriteFile(target, []byte("three"), 0o600); err != nil {
			t.Error(err)
		}
	}
	f.duringLoad.Store(&hook)
	mustLink(t, target, file)
	f.expectCall(t, "changed to two")
	f.expectCall(t, "changed to three", "changed to ")
}

// Another process writes into the directory of the file without a pause: this neither hides a
// change of the file nor makes Load run.
func TestRunSeesAChangeInABusyDirectory(t *testing.T) {
	dir := t.TempDir()
	file, log := filepath.Join(dir, "file"), filepath.Join(dir, "log")
	mustWrite(t, file, "one")
	mustWrite(t, log, "line")
	f := newFollower(t, file)

	writes, stop, stopped := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for tick := time.NewTicker(10 * time.Millisecond); ; <-tick.C {
			if err := os.WriteFile(log, []byte("line"), 0o600); err != nil {
				t.Error(err)
			}
			select {
			case writes <- struct{}{}:
			default:
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
	defer func() { close(stop); <-stopped }()
	for range 30 {
		<-writes
	}
	mustWrite(t, file, "two")
	f.expectCall(t, "changed to two")
	if first := <-f.loads; first != "two" {
		t.Errorf("%q was loaded again because of another file", first)
	}
}
