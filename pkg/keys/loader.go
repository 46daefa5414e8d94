package keys

import (
	"context"
	"fmt"
	"time"

	"github.com/sakeeper/sakeeper/pkg/internal/filewatch"
)

// Loader holds the keys of files and reloads them when the files change. If the new files
// cannot be used, the last good keys stay. Its methods may be called concurrently; Run may be
// called once.
type Loader struct{ value *filewatch.Value[*Set] }

// Open loads the keys. The errors are those of [Files.Load].
func (f Files) Open() (*Loader, error) {
	return open(filewatch.Config[*Set]{What: "signing keys", Files: f.paths(), Load: f.Load, Describe: describeSigning})
}

// OpenVerification loads only KeyFiles, for a process that does not sign.
func (f Files) OpenVerification() (*Loader, error) {
	return open(filewatch.Config[*Set]{What: "verification keys", Files: f.KeyFiles, Load: f.loadVerification, Describe: describeVerification})
}

// Open loads the keys. The errors are those of [Directory.Load].
func (d Directory) Open() (*Loader, error) {
	return open(filewatch.Config[*Set]{What: "signing keys", Dirs: []string{string(d)}, Load: d.Load, Describe: describeSigning})
}

// OpenVerification loads the keys for a process that does not sign. It needs no private keys.
func (d Directory) OpenVerification() (*Loader, error) {
	return open(filewatch.Config[*Set]{What: "verification keys", Dirs: []string{string(d)}, Load: d.loadVerification, Describe: describeVerification})
}

func open(cfg filewatch.Config[*Set]) (*Loader, error) {
	cfg.Equal = (*Set).Equal
	value, err := filewatch.New(cfg)
	if err != nil {
		return nil, err
	}
	return &Loader{value}, nil
}

func describeSigning(set *Set) string      { return "signing key " + set.Signing().String() }
func describeVerification(set *Set) string { return fmt.Sprintf("%d keys", len(set.Verification())) }

// Get returns the last good keys. It never returns nil.
func (l *Loader) Get() *Set { return l.value.Get() }

// ReadAt returns the start of the last read that found good files, changed or not: what a
// later Get returns was in the files at that time, or after it.
func (l *Loader) ReadAt() time.Time { return l.value.ReadAt() }

// OnChange makes Run call f after every change of the keys. F must not block.
func (l *Loader) OnChange(f func()) { l.value.OnChange(f) }

// OnError makes Run call f when changed files cannot be used, once per error text. F must not
// block.
func (l *Loader) OnError(f func(error)) { l.value.OnError(f) }

// Run follows the files until ctx ends, and returns nil.
func (l *Loader) Run(ctx context.Context) error { return l.value.Run(ctx) }
