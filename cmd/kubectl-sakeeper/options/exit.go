package options

import "errors"

// FoundError is the result of a command that found what it was asked to fail on. Its exit code is 2,
// that of other errors is 1.
type FoundError struct{ Text string }

// Error returns the text.
func (e *FoundError) Error() string { return e.Text }

// ExitCode returns the exit code of an error; 0 for nil.
func ExitCode(err error) int {
	var found *FoundError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &found):
		return 2
	default:
		return 1
	}
}
