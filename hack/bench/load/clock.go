package load

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// clock measures the time between begin and happen, by name. It is safe for concurrent use.
type clock struct {
	mu    sync.Mutex
	begun map[string]time.Time
	took  map[string]time.Duration
	first time.Time
	last  time.Time
	early time.Time // of the first that happened
	want  int
	all   chan struct{}
}

// newClock returns a clock that is done after happen was called for want names.
func newClock(want int) *clock {
	return &clock{begun: map[string]time.Time{}, took: map[string]time.Duration{}, want: want, all: make(chan struct{})}
}

func (c *clock) begin(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.begun[name] = time.Now()
	if c.first.IsZero() {
		c.first = c.begun[name]
	}
}

// happen counts once for every name, and only after begin.
func (c *clock) happen(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	begun, known := c.begun[name]
	if _, again := c.took[name]; again || !known {
		return
	}
	c.last = time.Now()
	if c.early.IsZero() {
		c.early = c.last
	}
	c.took[name] = c.last.Sub(begun)
	if len(c.took) == c.want {
		close(c.all)
	}
}

// wait waits until the clock is done.
func (c *clock) wait(ctx context.Context) (Result, error) {
	select {
	case <-c.all:
	case <-ctx.Done():
		c.mu.Lock()
		defer c.mu.Unlock()
		return Result{}, fmt.Errorf("timed out: %d of %d objects are done", len(c.took), c.want)
	}
	return c.result(), nil
}

func (c *clock) result() Result {
	c.mu.Lock()
	defer c.mu.Unlock()
	took := make([]time.Duration, 0, len(c.took))
	for _, t := range c.took {
		took = append(took, t)
	}
	slices.Sort(took)
	r := Result{Elapsed: c.last.Sub(c.first), Ended: c.last, First: c.early.Sub(c.first)}
	r.P50, r.P99 = percentiles(took)
	return r
}

// percentiles are those of an ascending list; zero if it is empty.
func percentiles(took []time.Duration) (p50, p99 time.Duration) {
	if n := len(took); n > 0 {
		return took[n/2], took[min(n-1, n*99/100)]
	}
	return 0, 0
}

// restart sets the begin of all names to now.
func (c *clock) restart() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.first = time.Now()
	for name := range c.begun {
		c.begun[name] = c.first
	}
}
