// Package filewatch reloads a value from files when the files change: signing keys, a CA
// bundle.
//
//   - [Value.Get] always returns a good value: [New] fails if the files are bad, and a later
//     bad file leaves the last good value in place.
//   - Every kind of change is seen: a write, a rename over the file, or the swap of a
//     symlink above it, which is how kubelet updates a mounted Secret or ConfigMap.
//     Directories are watched, not files, because a watch on a file ends when the file is
//     replaced.
//   - A change without a notification (a network file system, a directory that was removed
//     and made again) is seen by polling once a minute.
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
	// readDelay is the time between a change and the read, so that a writer that truncates
	// and then writes has finished.
	readDelay = 100 * time.Millisecond
	// pollInterval is how often the files are read without a notification.
	pollInterval = time.Minute
)

// Config says what to load. All fields are required, but only one of Files and Dirs.
type Config[T any] struct {
	// What is the name of the value in logs, for example "signing keys".
	What string
	// Files are the paths whose change makes Load run again.
	Files []string
	// Dirs are directories; a change of any file in them makes Load run again.
	Dirs []string
	// Load reads and checks the files. Its errors must not hold key material.
	Load func() (T, error)
	// Describe identifies a value in logs: a key id, a hash.
	Describe func(T) string
	// Equal returns true if a newly loaded value is the same as the one in use.
	Equal func(a, b T) bool
}

// Value is a value that follows its files. Its methods may be called concurrently; Run may
// be called once.
type Value[T any] struct {
	cfg     Config[T]
	current atomic.Pointer[T]
	read    atomic.Pointer[time.Time]

	mu        sync.Mutex
	onChange  []func()
	onError   []func(error)
	lastError string
}

// New loads the value. It returns the error of Load, or that of an incomplete config.
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

// ReadAt returns the start of the last read that found good files, changed or not: what a
// later Get returns was in the files at that time, or after it.
func (v *Value[T]) ReadAt() time.Time { return *v.read.Load() }

// OnChange makes Run call f after every change of the value. F must not block.
func (v *Value[T]) OnChange(f func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.onChange = append(v.onChange, f)
}

// OnError makes Run call f when the files cannot be used, once per error text until the text
// changes or the files are good again. F must not block.
func (v *Value[T]) OnError(f func(error)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.onError = append(v.onError, f)
}

// Run follows the files until ctx ends, and returns nil. If the files cannot be watched, the
// error is logged and the files are only polled.
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
	pending := false // a read after readDelay
	for {
		select {
		case <-ctx.Done():
			return nil
		case event := <-events:
			// Without a reset while a read is pending: steady changes must not delay it.
			if !pending && v.affects(event.Name) {
				pending = true
				timer.Reset(readDelay)
			}
		case err := <-failures:
			logger.Error(err, "Watching files reported an error", "what", v.cfg.What)
			pending = true
			timer.Reset(readDelay)
		case <-timer.C:
			pending = false
			watch() // before the load, so that no change between the two is missed
			v.load(ctx)
			timer.Reset(pollInterval)
		}
	}
}

// affects returns true if an event at path can change what the files hold: path is one of
// them, or a symlink or directory above one, or was removed. Other files in the same
// directory, such as logs, may change all the time.
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

// watch watches the directory of every file and of every symlink's target. It runs before
// each load, because targets change. A directory that does not exist yet is found by a later
// poll.
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
		v.read.Store(&began) // after the value, so that ReadAt is never later than what Get returns
	}
}

// recordResult records the error of a load and returns the error text of the load before.
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
