package cabundle

import (
	"context"
	"fmt"
	"os"

	"github.com/sakeeper/sakeeper/pkg/internal/filewatch"
)

// Loader holds the bundle of a file and reloads it when the file changes. If the new file
// cannot be used, the last good bundle stays. Its methods may be called concurrently; Run may
// be called once.
type Loader struct{ value *filewatch.Value[Bundle] }

// Open loads the root CA file, as [Load] does, and returns the errors of it.
func Open(path string) (*Loader, error) {
	return open("root CA", path, func() (Bundle, error) { return Load(path) })
}

// OpenFile loads a file with CA certificates. What is its name in logs, for example
// "client CA". Errors name the file.
func OpenFile(what, path string) (*Loader, error) {
	return open(what, path, func() (Bundle, error) {
		data, err := os.ReadFile(path)
		return parse(data, err, path)
	})
}

// OpenFunc loads certificates that read takes from the file at path, such as those in a
// kubeconfig. What is their name in logs and errors.
func OpenFunc(what, path string, read func() ([]byte, error)) (*Loader, error) {
	return open(what, path, func() (Bundle, error) {
		data, err := read()
		return parse(data, err, what+": "+path)
	})
}

// parse parses data, or returns err. Its errors begin with where.
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
		What: what, Files: []string{path}, Load: load, Equal: Bundle.Equal,
		Describe: func(b Bundle) string { return "SHA-256 " + b.Fingerprint() },
	})
	if err != nil {
		return nil, err
	}
	return &Loader{value}, nil
}

// Get returns the last good bundle. It never is the zero value.
func (l *Loader) Get() Bundle { return l.value.Get() }

// OnChange makes Run call f after every change of the bundle. F must not block.
func (l *Loader) OnChange(f func()) { l.value.OnChange(f) }

// OnError makes Run call f when the changed file cannot be used, once per error text. F must
// not block.
func (l *Loader) OnError(f func(error)) { l.value.OnError(f) }

// Run follows the file until ctx ends, and returns nil.
func (l *Loader) Run(ctx context.Context) error { return l.value.Run(ctx) }
