package stopwatch

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	clocktesting "k8s.io/utils/clock/testing"

	"github.com/sakeeper/sakeeper/pkg/testkit"
)

// machine has a wall clock that can be set, and a monotonic clock that stops while the machine
// is suspended.
type machine struct {
	mu        sync.Mutex
	wall      time.Time
	monotonic time.Duration
}

func (m *machine) Now() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.wall
}

func (m *machine) Since(time.Time) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.monotonic
}

func (m *machine) change(wall, monotonic time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wall, m.monotonic = m.wall.Add(wall), m.monotonic+monotonic
}

func (m *machine) pass(d time.Duration)    { m.change(d, d) }
func (m *machine) suspend(d time.Duration) { m.change(d, 0) }
func (m *machine) set(d time.Duration)     { m.change(d, 0) }

func TestTheLongerTimeCounts(t *testing.T) {
	cases := map[string]struct {
		in   []func(*machine)
		want time.Duration
	}{
		"nothing passed": {},
		"an hour":        {in: []func(*machine){func(m *machine) { m.pass(time.Hour) }}, want: time.Hour},
		"suspended":      {in: []func(*machine){func(m *machine) { m.pass(time.Hour); m.suspend(6 * time.Hour) }}, want: 7 * time.Hour},
		"set ahead":      {in: []func(*machine){func(m *machine) { m.pass(time.Hour); m.set(time.Minute) }}, want: 61 * time.Minute},
		"set back":       {in: []func(*machine){func(m *machine) { m.pass(time.Hour); m.set(-24 * time.Hour) }}, want: time.Hour},
		"set back, and then suspended": {
			in: []func(*machine){func(m *machine) { m.set(-24 * time.Hour) }, func(m *machine) { m.suspend(time.Hour) }}, want: time.Hour,
		},
		"slewed by NTP": {
			in: []func(*machine){func(m *machine) { m.set(time.Second) }, func(m *machine) { m.set(-time.Second) }, func(m *machine) { m.set(time.Second) }},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			m := &machine{wall: testkit.Instant(), monotonic: 12345}
			watch := New(m, m)
			before := watch.Elapsed()
			for _, happen := range tc.in {
				happen(m)
				watch.Elapsed()
			}
			if got := watch.Elapsed() - before; got != tc.want {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

func TestAnOrdinaryClock(t *testing.T) {
	fake := clocktesting.NewFakePassiveClock(testkit.Instant())
	watch := New(fake, fake)
	fake.SetTime(testkit.Instant().Add(time.Minute))
	if got := watch.Elapsed(); got != time.Minute {
		t.Errorf("got %v, want a minute", got)
	}
}

func TestJumpsAreNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &machine{wall: testkit.Instant()}
		watch, jumps := New(m, m), 0
		defer testkit.Start(t.Context(), t, func(ctx context.Context) error {
			watch.WatchClocks(ctx, func() { jumps++ })
			return nil
		})()
		synctest.Wait()
		for _, step := range []struct {
			what   string
			change func()
			want   int
		}{
			{"time passes", func() { m.pass(checkInterval) }, 0},
			{"NTP corrects a little", func() { m.pass(checkInterval); m.set(time.Second) }, 0},
			{"suspended", func() { m.pass(time.Second); m.suspend(time.Hour) }, 1},
			{"nothing more", func() { m.pass(checkInterval) }, 1},
			{"set back", func() { m.pass(checkInterval); m.set(-time.Minute) }, 2},
			{"a late timer", func() { m.pass(time.Hour) }, 2},
			{"suspended, and Elapsed is called first", func() { m.suspend(time.Hour); watch.Elapsed() }, 3},
		} {
			step.change()
			time.Sleep(checkInterval)
			synctest.Wait()
			if jumps != step.want {
				t.Fatalf("%s: %d jumps, want %d", step.what, jumps, step.want)
			}
		}
	})
}
