// Package filewatch keeps a value that is made from files current while the
// process runs: signing keys, a CA bundle.
//
// It keeps true:
//
//   - [Value.Get] always returns a good value: New refuses to start from a bad
//     one, and a bad new file leaves the last good value in place.
//   - A change is seen however it is made: a write, a rename over the file, or
//     the swap of a symlink above it, which is how kubelet updates a mounted
//     Secret or ConfigMap. Directories are watched, not files, because a watch
//     on a file ends when the file is replaced.
//   - A change that no notification reports (a network file system, a directory
//     that was removed and made again) is seen at the next poll.
package filewatch

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fsnotify/fsnotify"
	"k8s.io/klog/v2"
)

const (
	// settle is how long after a change the files are read: a writer that truncates
	// and then writes should not be caught half way.
	readDelay = 100 * time.Millisecond
	// poll is how often the files are read when nothing reports a change.
	pollInterval = time.Minute
)

// Config says what to load. All fields are required, of Files and Dirs one.
type Config[T any] struct {
	// What names the value in logs, for example "signing keys".
	What string
	// Files are the paths whose change makes Load run again.
	Files []string
	// Dirs are directories of which every file matters.
	Dirs []string
	// Load reads and checks the files. Its errors must not hold key material.
	Load func() (T, error)
	// Describe says in a word which value it is, for logs: a key id, a hash.
	Describe func(T) string
	// Equal tells whether a newly loaded value is the one already in use.
	Equal func(a, b T) bool
}

// Value is the current value. Its methods may be called concurrently.
type Value[T any] struct {
	cfg     Config[T]
	current atomic.Pointer[T]
	read    atomic.Pointer[time.Time]

	mu        sync.Mutex
	onChange  []func()
	onError   []func(error)
	lastError string
}

// New loads the value once and fails when that fails.
func New[T any](cfg Config[T]) (*Value[T], error) {
	if cfg.What == "" || len(cfg.Files)+len(cfg.Dirs) == 0 || cfg.Load == nil || cfg.Describe == nil || cfg.Equal == nil {
		return nil, errors.New("filewatch: What, Files or Dirs, Load, Describe and Equal are required")
	}
	began := time.Now()
	first, err := cfg.Load()
	if err != nil {
		return nil, err
	}
	v := &Value[T]{cfg: cfg}
	v.current.Store(&first)
	v.read.Store(&began)
	return v, nil
}

// Get returns the last good value. Callers must not change what it points to.
func (v *Value[T]) Get() T { return *v.current.Load() }

// ReadAt is when the last reading began that found the files good, changed or not: what a
// Get after it returns was the truth then.
func (v *Value[T]) ReadAt() time.Time { return *v.read.Load() }

// OnChange makes f run after every change of the value, in the goroutine of Run:
// f must not block.
func (v *Value[T]) OnChange(f func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.onChange = append(v.onChange, f)
}

// OnError makes f run when the files cannot be used, once per reason, in the
// goroutine of Run: f must not block.
func (v *Value[T]) OnError(f func(error)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.onError = append(v.onError, f)
}

// Run follows the files until ctx ends. It returns nil: a watch that cannot be
// had is logged, and polling goes on without it.
func (v *Value[T]) Run(ctx context.Context) error {
	logger := klog.FromContext(ctx)
	var events <-chan fsnotify.Event
	var failures <-chan error
	watch := func() {}
	if w, err := fsnotify.NewWatcher(); err != nil {
		logger.Error(err, "Could not watch files, polling them instead", "what", v.cfg.What, "interval", pollInterval)
	} else {
		defer func() { _ = w.Close() }()
		events, failures = w.Events, w.Errors
		watch = func() { v.watch(w) }
	}

	timer := time.NewTimer(0)
	defer timer.Stop()
	due := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case event := <-events:
			// No reset while one is due: a directory that never rests must not put it off.
			if !due && v.affects(event.Name) {
				due = true
				timer.Reset(readDelay)
			}
		case err := <-failures:
			logger.Error(err, "Watching files reported an error", "what", v.cfg.What)
			due = true
			timer.Reset(readDelay)
		case <-timer.C:
			due = false
			watch() // before the load, so that no change falls between the two
			v.load(ctx)
			timer.Reset(pollInterval)
		}
	}
}

// matters tells whether an event at path can change what the files hold: it is
// one of them, or a symlink or directory on the way to one, or gone. Other files
// of a directory, logs for example, may change all the time.
func (v *Value[T]) affects(path string) bool {
	for _, file := range v.cfg.Files {
		if target, err := filepath.EvalSymlinks(file); path == filepath.Clean(file) || (err == nil && path == target) {
			return true
		}
	}
	for _, dir := range v.cfg.Dirs {
		if target, err := filepath.EvalSymlinks(dir); filepath.Dir(path) == filepath.Clean(dir) || (err == nil && filepath.Dir(path) == target) {
			return true
		}
	}
	info, err := os.Lstat(path)
	return err != nil || !info.Mode().IsRegular()
}

// watch adds the directory of every file and that of every symlink's target. It
// is run after each load, because targets move. A directory that does not exist
// at this moment is found by a later poll.
func (v *Value[T]) watch(w *fsnotify.Watcher) {
	for _, dir := range v.cfg.Dirs {
		_ = w.Add(dir)
	}
	for _, file := range slices.Concat(v.cfg.Files, v.cfg.Dirs) {
		_ = w.Add(filepath.Dir(file))
		for path := file; path != filepath.Dir(path); path = filepath.Dir(path) {
			if info, err := os.Lstat(path); err == nil && info.Mode()&os.ModeSymlink != 0 {
				_ = w.Add(filepath.Dir(path))
			}
		}
		if target, err := filepath.EvalSymlinks(file); err == nil {
			_ = w.Add(filepath.Dir(target))
		}
	}
}

func (v *Value[T]) load(ctx context.Context) {
	logger := klog.FromContext(ctx)
	began := time.Now()
	next, err := v.cfg.Load()
	onChange, onError, before := v.recordResult(err)
	switch {
	case err != nil && err.Error() == before:
	case err != nil:
		logger.Error(err, "Kept the last good value, the new one cannot be used", "what", v.cfg.What)
		for _, f := range onError {
			f(err)
		}
	case !v.cfg.Equal(v.Get(), next):
		logger.Info("Reloaded", "what", v.cfg.What, "old", v.cfg.Describe(v.Get()), "new", v.cfg.Describe(next))
		v.current.Store(&next)
		for _, f := range onChange {
			f()
		}
	case before != "":
		logger.Info("The files hold the value in use again", "what", v.cfg.What)
	}
	if err == nil {
		v.read.Store(&began) // after the value, which must not be older
	}
}

// note remembers the outcome of a load and returns the error text of the one
// before.
func (v *Value[T]) recordResult(err error) (onChange []func(), onError []func(error), before string) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	before, v.lastError = v.lastError, text
	return v.onChange, v.onError, before
}
