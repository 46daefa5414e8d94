// Package options has the flags that several subcommands share, and the help text that lists
// flags by section.
//
// Each group of flags has AddFlags, which adds them with their defaults, and Validate, which
// returns every error that can be seen without I/O.
package options
