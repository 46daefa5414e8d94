package keys

import (
	"context"
	"fmt"
	"time"

	"github.com/sakeeper/sakeeper/pkg/internal/filewatch"
)

// Loader holds the keys of files and follows their changes. A changed file that cannot be
// used leaves the last good keys in place. It is safe for concurrent use.
type Loader struct{ value *filewatch.Value[*Set] }

// Open loads the keys, one of which signs. See [Files.Load] for errors.
func (f Files) Open() (*Loader, error) {
	return open(filewatch.Config[*Set]{What: "signing keys", Files: f.paths(), Load: f.Load, Describe: describeSigning})
}

// OpenVerification loads KeyFiles alone, for a process that signs nothing.
func (f Files) OpenVerification() (*Loader, error) {
	return open(filewatch.Config[*Set]{What: "verification keys", Files: f.KeyFiles, Load: f.loadVerification, Describe: describeVerification})
}

// Open loads the keys, one of which signs. See [Directory.Load] for errors.
func (d Directory) Open() (*Loader, error) {
	return open(filewatch.Config[*Set]{What: "signing keys", Dirs: []string{string(d)}, Load: d.Load, Describe: describeSigning})
}

// OpenVerification loads the keys for a process that signs nothing.
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

// Get returns the last good keys.
func (l *Loader) Get() *Set { return l.value.Get() }

// ReadAt is when the last reading began that found the files good, changed or not.
func (l *Loader) ReadAt() time.Time { return l.value.ReadAt() }

// OnChange makes f run after every change of the keys, in the goroutine of Run: f must not
// block.
func (l *Loader) OnChange(f func()) { l.value.OnChange(f) }

// OnError makes f run when changed files cannot be used, once per reason, in the goroutine
// of Run: f must not block.
func (l *Loader) OnError(f func(error)) { l.value.OnError(f) }

// Run follows the files until ctx ends. It returns nil.
func (l *Loader) Run(ctx context.Context) error { return l.value.Run(ctx) }
