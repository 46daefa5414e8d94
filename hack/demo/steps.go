package main

import (
	"fmt"
	"io"
	"time"
)

// steps prints numbered steps and how long they took.
type steps struct {
	out    io.Writer
	number int
	began  time.Time
}

// title begins a step, and starts its timer.
func (s *steps) title(text string) {
	s.number++
	_, _ = fmt.Fprintf(s.out, "\n%d. %s\n", s.number, text)
	s.begin()
}

// begin starts the timer again.
func (s *steps) begin() { s.began = time.Now() }

// done prints a result, and the time since begin.
func (s *steps) done(format string, args ...any) {
	_, _ = fmt.Fprintf(s.out, "   %8s  %s\n", time.Since(s.began).Round(100*time.Microsecond), fmt.Sprintf(format, args...))
}

// say prints a line without a time.
func (s *steps) say(format string, args ...any) {
	_, _ = fmt.Fprintf(s.out, "   "+format+"\n", args...)
}
