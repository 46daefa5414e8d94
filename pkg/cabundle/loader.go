package cabundle

import (
	"context"
	"fmt"
	"os"

	"github.com/sakeeper/sakeeper/pkg/internal/filewatch"
)

// Loader holds the bundle of a file and follows its changes. A changed file that cannot be
// used leaves the last good bundle in place. It is safe for concurrent use.
type Loader struct{ value *filewatch.Value[Bundle] }

// Open loads the root CA file. See [Load] for errors.
func Open(path string) (*Loader, error) {
	return open("root CA", path, func() (Bundle, error) { return Load(path) })
}

// OpenFile loads any file with CA certificates; what names it in logs, for example
// "client CA". Errors name the file.
func OpenFile(what, path string) (*Loader, error) {
	return open(what, path, func() (Bundle, error) {
		data, err := os.ReadFile(path)
		return parse(data, err, path)
	})
}

// OpenFunc loads certificates that read takes out of the file, such as those in a
// kubeconfig.
func OpenFunc(what, path string, read func() ([]byte, error)) (*Loader, error) {
	return open(what, path, func() (Bundle, error) {
		data, err := read()
		return parse(data, err, what+": "+path)
	})
}

// parse reads certificates; where is what errors begin with.
func parse(data []byte, err error, where string) (Bundle, error) {
	if err != nil {
		return Bundle{}, err
	}
	bundle, err := Parse(data)
	if err != nil {
		return Bundle{}, fmt.Errorf("%s: %w", where, err)
	}
	return bundle, nil
}

func open(what, path string, load func() (Bundle, error)) (*Loader, error) {
	value, err := filewatch.New(filewatch.Config[Bundle]{
		What: what, Files: []string{path}, Load: load, Equal: Equal,
		Describe: func(b Bundle) string { return "SHA-256 " + b.Fingerprint() },
	})
	if err != nil {
		return nil, err
	}
	return &Loader{value}, nil
}

// Get returns the last good bundle.
func (l *Loader) Get() Bundle { return l.value.Get() }

// OnChange makes f run after every change of the bundle, in the goroutine of Run: f must not
// block.
func (l *Loader) OnChange(f func()) { l.value.OnChange(f) }

// OnError makes f run when the changed file cannot be used, once per reason, in the
// goroutine of Run: f must not block.
func (l *Loader) OnError(f func(error)) { l.value.OnError(f) }

// Run follows the file until ctx ends. It returns nil.
func (l *Loader) Run(ctx context.Context) error { return l.value.Run(ctx) }
