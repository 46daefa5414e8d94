// Package stopwatch measures elapsed time, and notices clock jumps, on machines that are
// suspended or whose clock is set.
package stopwatch

import (
	"context"
	"sync"
	"time"

	"k8s.io/utils/clock"
)

const (
	// checkInterval is how often the clocks are compared.
	checkInterval = 5 * time.Second
	// jumpThreshold is the difference per check from which on it counts as a jump. A clock
	// that NTP slews stays far below it.
	jumpThreshold = 3 * time.Second
)

// Stopwatch measures elapsed time with two clocks: the wall clock, which can be set, and the
// monotonic clock, which stops while the machine is suspended. If they disagree, the longer
// time counts: a token that is renewed too early costs a request, one that is renewed too
// late is refused. It is safe for concurrent use.
type Stopwatch struct {
	wall, monotonic clock.PassiveClock
	start           time.Time

	mu   sync.Mutex
	last reading
	// suspended is the time that the monotonic clock missed.
	suspended time.Duration
	jumps     int
}

type reading struct {
	wall      time.Time
	monotonic time.Duration
}

// New starts a stopwatch. Wall gives the time of day. Monotonic is a clock whose Since does
// not change when the time is set, such as [clock.RealClock].
func New(wall, monotonic clock.PassiveClock) *Stopwatch {
	s := &Stopwatch{wall: wall, monotonic: monotonic, start: monotonic.Now()}
	s.last = s.read()
	return s
}

func (s *Stopwatch) read() reading {
	return reading{wall: s.wall.Now().Round(0), monotonic: s.monotonic.Since(s.start)}
}

// Elapsed returns the time since New.
func (s *Stopwatch) Elapsed() time.Duration {
	elapsed, _ := s.advance()
	return elapsed
}

// advance reads both clocks. It returns the time since New and the number of jumps so far.
func (s *Stopwatch) advance() (elapsed time.Duration, jumps int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.read()
	difference := now.wall.Sub(s.last.wall) - (now.monotonic - s.last.monotonic)
	s.last = now
	if difference.Abs() >= jumpThreshold {
		s.jumps++
		s.suspended += max(difference, 0)
	}
	return now.monotonic + s.suspended, s.jumps
}

// WatchClocks calls onJump within seconds after the wall clock was set or the machine was
// resumed: timers are late then, and what has a lifetime is older than it seems. It returns
// when ctx ends.
func (s *Stopwatch) WatchClocks(ctx context.Context, onJump func()) {
	ticker := time.NewTicker(checkInterval)
	defer ticker.Stop()
	for _, before := s.advance(); ; {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if _, jumps := s.advance(); jumps != before {
			before = jumps
			onJump()
		}
	}
}
