package main

import (
	"fmt"
	"io"
	"time"
)

// steps prints what happens, numbered, and how long each thing took.
type steps struct {
	out    io.Writer
	number int
	began  time.Time
}

// title begins a step, and its clock.
func (s *steps) title(text string) {
	s.number++
	_, _ = fmt.Fprintf(s.out, "\n%d. %s\n", s.number, text)
	s.begin()
}

// begin sets the clock to zero: what follows is what is measured.
func (s *steps) begin() { s.began = time.Now() }

// done says what is true now, and how long after begin.
func (s *steps) done(format string, args ...any) {
	_, _ = fmt.Fprintf(s.out, "   %8s  %s\n", time.Since(s.began).Round(100*time.Microsecond), fmt.Sprintf(format, args...))
}

// say adds something that was not waited for.
func (s *steps) say(format string, args ...any) {
	_, _ = fmt.Fprintf(s.out, "   "+format+"\n", args...)
}
