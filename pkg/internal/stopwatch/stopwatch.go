// Package stopwatch tells how much time has passed, and when a clock has jumped, on
// machines that sleep and whose clocks people and NTP set.
package stopwatch

import (
	"context"
	"sync"
	"time"

	"k8s.io/utils/clock"
)

const (
	// tick is how often the clocks are compared.
	checkInterval = 5 * time.Second
	// jump is how far they move apart in a tick when something happened; a clock that
	// is only corrected by and by stays far below.
	jumpThreshold = 3 * time.Second
)

// Stopwatch tells how much time has passed by two clocks neither of which can be trusted
// alone: the wall clock, which is set, and the one that only runs, which stands still
// while the machine sleeps. Where they disagree the longer time counts: what is renewed
// too early costs a request, and what is renewed too late fails whoever uses it. It is
// safe for concurrent use.
type Stopwatch struct {
	wall, monotonic clock.PassiveClock
	start           time.Time

	mu   sync.Mutex
	last reading
	// ahead is by how much more has passed than the running clock says.
	suspended time.Duration
	jumps     int
}

type reading struct {
	wall      time.Time
	monotonic time.Duration
}

// New takes the time of day from wall, and the time that has passed from running,
// which nobody corrects ([clock.RealClock]).
func New(wall, running clock.PassiveClock) *Stopwatch {
	s := &Stopwatch{wall: wall, monotonic: running, start: running.Now()}
	s.last = s.read()
	return s
}

func (s *Stopwatch) read() reading {
	return reading{wall: s.wall.Now().Round(0), monotonic: s.monotonic.Since(s.start)}
}

// Elapsed is how much time has passed since the stopwatch was made.
func (s *Stopwatch) Elapsed() time.Duration {
	elapsed, _ := s.advance()
	return elapsed
}

// look also returns how often the clocks have moved apart.
func (s *Stopwatch) advance() (elapsed time.Duration, jumps int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.read()
	apart := now.wall.Sub(s.last.wall) - (now.monotonic - s.last.monotonic)
	s.last = now
	if apart.Abs() >= jumpThreshold {
		s.jumps++
		s.suspended += max(apart, 0)
	}
	return now.monotonic + s.suspended, s.jumps
}

// Watch calls jumped within seconds of a wall clock that was set or a machine that has
// slept, when timers are late and what has a lifetime is older than it seems. It returns when ctx ends.
func (s *Stopwatch) WatchClocks(ctx context.Context, jumped func()) {
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
			jumped()
		}
	}
}
