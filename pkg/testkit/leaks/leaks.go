// Package leaks fails tests that leave goroutines behind. It is package goleak with more patience: on a
// busy machine a goroutine that was told to end may need longer than the half of a second that
// goleak waits for it.
package leaks

import (
	"testing"
	"time"

	"go.uber.org/goleak"
)

// patience is how long a goroutine may take to end.
const patience = time.Minute

// Main runs the tests of a package, exits, and fails if a goroutine is left.
func Main(m *testing.M, options ...goleak.Option) {
	goleak.VerifyTestMain(patient{m, options}, options...)
}

// patient waits after the tests until no goroutine is left.
type patient struct {
	*testing.M

	options []goleak.Option
}

func (p patient) Run() int {
	code := p.M.Run()
	if code == 0 {
		await(p.options)
	}
	return code
}

// None fails the test if a goroutine is left.
func None(t *testing.T, options ...goleak.Option) {
	t.Helper()
	await(options)
	goleak.VerifyNone(t, options...)
}

// await returns when no goroutine is left, or the patience ends. Each search takes some time itself.
func await(options []goleak.Option) {
	for began := time.Now(); goleak.Find(options...) != nil && time.Since(began) < patience; {
	}
}
