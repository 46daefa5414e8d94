// Package writebackoff limits how often the same content is written to an object that another
// client keeps changing back.
//
// It keeps true:
//
//   - The first five times that a content has to be written to an object again, it may be written
//     at once; after that, one second after the last write, then two, four and so on, up to five
//     minutes. So a content that another client keeps undoing is always written again, and costs
//     at most 26 writes in the first hour.
//   - Ten minutes after the last write, an object starts anew.
//   - One object or content never delays another.
//   - If the clock is set back, no delay grows.
package writebackoff

import (
	"maps"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/internal/metrics"
)

const (
	// freeRewrites is how often a content may be written again without delay.
	freeRewrites = 5
	// minDelay is the first delay after a write, maxDelay the longest.
	minDelay = time.Second
	maxDelay = 5 * time.Minute
	// forgetAfter is when the writes of an object no longer count.
	forgetAfter = 10 * time.Minute
)

// Tracker counts the writes to objects of one kind. K identifies an object. It is safe for
// concurrent use.
type Tracker[K comparable] struct {
	clock clock.PassiveClock

	mu      sync.Mutex
	entries map[objectKey[K]]*entry
	// nextSweep is when entries that no longer count are dropped.
	nextSweep time.Time
}

// objectKey is one content of one object. The content is a fingerprint, never a token.
type objectKey[K comparable] struct {
	object  K
	content string
}

type entry struct {
	writes   int
	last     time.Time // of the writes
	reported bool
}

// delay is how long after the last write the next one may be made.
func (e *entry) delay() time.Duration {
	// The first write is no rewrite.
	limited := e.writes - freeRewrites
	if limited <= 0 {
		return 0
	}
	delay := minDelay
	for i := 1; i < limited && delay < maxDelay; i++ {
		delay = min(2*delay, maxDelay)
	}
	return delay
}

// age is the time since the last write. If the clock was set back, it counts from now on.
func (e *entry) age(now time.Time) time.Duration {
	if e.last.After(now) {
		e.last = now
	}
	return now.Sub(e.last)
}

// over returns true if the writes no longer count.
func (e *entry) over(now time.Time) bool { return e.age(now) >= forgetAfter }

// New makes a tracker; kind is a label of the metric sakeeper_contended_objects. A nil registerer
// exports none.
func New[K comparable](kind string, clock clock.PassiveClock, registerer prometheus.Registerer) *Tracker[K] {
	t := &Tracker[K]{clock: clock, entries: map[objectKey[K]]*entry{}}
	newMetric(registerer).add(kind, t.contended)
	return t
}

// Decision is what [Tracker.Allow] returns.
type Decision struct {
	// Wait is how long the write must wait. Zero: it may be made now.
	Wait time.Duration
	// Warn is true once when writes to an object begin to be delayed: the moment to record an
	// event ([Report]).
	Warn bool
}

// Allow returns whether content may be written to object now. Call it right before a write that
// the state of the object requires.
func (t *Tracker[K]) Allow(object K, content string) Decision {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.clock.Now()
	t.sweep(now)
	e := t.entries[objectKey[K]{object, content}]
	if e == nil || e.over(now) {
		return Decision{}
	}
	delay := e.delay()
	d := Decision{Wait: max(0, delay-e.age(now)), Warn: delay > 0 && !e.reported}
	e.reported = e.reported || d.Warn
	return d
}

// Record notes that content was written to object.
func (t *Tracker[K]) Record(object K, content string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now, key := t.clock.Now(), objectKey[K]{object, content}
	e := t.entries[key]
	if e == nil || e.over(now) {
		e = &entry{}
		t.entries[key] = e
	}
	e.writes++
	e.last = now
}

// contended is the number of objects to which a content is written with delays.
func (t *Tracker[K]) contended() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	objects, now := map[K]bool{}, t.clock.Now()
	for key, e := range t.entries {
		if e.delay() > 0 && !e.over(now) {
			objects[key.object] = true
		}
	}
	return len(objects)
}

// sweep drops entries that no longer count, once in a while.
func (t *Tracker[K]) sweep(now time.Time) {
	if wait := t.nextSweep.Sub(now); wait > 0 && wait <= forgetAfter { // not if the clock was set back
		return
	}
	t.nextSweep = now.Add(forgetAfter)
	maps.DeleteFunc(t.entries, func(_ objectKey[K], e *entry) bool { return e.over(now) })
}

// metric shows contended objects at each scrape.
type metric struct {
	description *prometheus.Desc

	mu     sync.Mutex
	counts map[string]func() int // by kind
}

func newMetric(registerer prometheus.Registerer) *metric {
	return metrics.Shared(registerer, &metric{counts: map[string]func() int{}, description: prometheus.NewDesc("sakeeper_contended_objects",
		"Objects that another client keeps changing back, and to which sakeeper therefore writes ever more slowly, by kind.",
		[]string{"kind"}, nil)})
}

func (m *metric) add(kind string, count func() int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.counts[kind] = count
}

// Describe implements [prometheus.Collector].
func (m *metric) Describe(out chan<- *prometheus.Desc) { out <- m.description }

// Collect implements [prometheus.Collector].
func (m *metric) Collect(out chan<- prometheus.Metric) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for kind, count := range m.counts {
		out <- prometheus.MustNewConstMetric(m.description, prometheus.GaugeValue, float64(count()), kind)
	}
}
