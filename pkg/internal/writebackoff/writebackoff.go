// Package writebackoff keeps true that sakeeper never fights: an object over which
// somebody else keeps disagreeing with it is left alone for a while.
//
// What counts is one content for one object. When the same content had to be written
// 5 times within 10 minutes and is wanted once more, every one of those writes was
// undone, and the object is contended: this content is not written to it for an
// hour. Another content (a new CA, say) is another matter. When 20 objects of a kind
// are contended, the somebody is likely a controller, such as an in-tree twin with
// another CA, and the whole kind is left alone; or, where objects of one kind have nothing
// to do with each other ([NewGrouped]), the group of them.
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
	// limit is how many writes within window must have been undone.
	limit  = 5
	window = 10 * time.Minute
	// truce is how long a contended object, or kind, is left alone.
	truce = time.Hour
	// manyObjects is how many contended objects make a contended kind.
	manyObjects = 20
)

// contendedMetric shows what is left alone at each scrape.
type contendedMetric struct {
	contended *prometheus.Desc

	mu     sync.Mutex
	counts map[string]func() int // by kind
}

func newMetrics(reg prometheus.Registerer) *contendedMetric {
	m := &contendedMetric{counts: map[string]func() int{}, contended: prometheus.NewDesc("sakeeper_contended_objects",
		"Objects that are left alone for an hour because somebody keeps undoing what is written, by kind. From 20 on, the whole kind is.",
		[]string{"kind"}, nil)}
	return metrics.Shared(reg, m)
}

// Describe implements [prometheus.Collector].
func (m *contendedMetric) Describe(out chan<- *prometheus.Desc) { out <- m.contended }

// Collect implements [prometheus.Collector].
func (m *contendedMetric) Collect(out chan<- prometheus.Metric) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for kind, count := range m.counts {
		out <- prometheus.MustNewConstMetric(m.contended, prometheus.GaugeValue, float64(count()), kind)
	}
}

func (m *contendedMetric) add(kind string, count func() int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.counts[kind] = count
}

// Tracker watches over the writes of one kind. K names an object. It is safe for
// concurrent use.
type Tracker[K comparable] struct {
	clock clock.PassiveClock
	group func(K) string

	mu      sync.Mutex
	entries map[matter[K]]*entry
	// groupUntil is when a group is no longer left alone.
	groupUntil map[string]time.Time
	// nextSweep is when entries of no more use are dropped.
	nextSweep time.Time
}

// matter is one content for one object. The content is a fingerprint: never put a
// token in.
type matter[K comparable] struct {
	object  K
	content string
}

type entry struct {
	writes []time.Time
	until  time.Time // not zero: left alone until then
}

// New makes a tracker; kind is a label of its metric. A nil registerer exports none.
func New[K comparable](kind string, clock clock.PassiveClock, registerer prometheus.Registerer) *Tracker[K] {
	return NewGrouped(kind, func(K) string { return "" }, clock, registerer)
}

// NewGrouped makes a tracker that leaves alone the group of an object, not the whole
// kind: what goes on in one namespace, say, is then nobody else's trouble.
func NewGrouped[K comparable](kind string, group func(K) string, clock clock.PassiveClock, registerer prometheus.Registerer) *Tracker[K] {
	t := &Tracker[K]{clock: clock, group: group, entries: map[matter[K]]*entry{}, groupUntil: map[string]time.Time{}}
	newMetrics(registerer).add(kind, t.contended)
	return t
}

// Verdict is what a tracker says of a write.
type Verdict struct {
	// Wait is how long the write must be left; zero: it may be made now.
	Wait time.Duration
	// Object and Kind tell that the object, or the whole kind or group, has become
	// contended by this very question: the moment to tell people.
	Object, Kind bool
	// Group is the one that is meant by Kind; empty: all.
	Group string
}

// Allow tells whether content may be written to object now. Ask right before a write
// that the state of the object calls for.
func (t *Tracker[K]) Allow(object K, content string) Verdict {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.clock.Now()
	t.sweep(now)
	e, group := t.entries[matter[K]{object, content}], t.group(object)
	v := Verdict{Group: group}
	if e != nil && e.until.IsZero() && len(recent(e.writes, now)) >= limit {
		e.until, e.writes = now.Add(truce), nil
		v.Object = true
		same := func(k K) bool { return t.group(k) == group }
		if t.count(now, same) >= manyObjects && !now.Before(t.groupUntil[group]) {
			t.groupUntil[group] = e.until
			v.Kind = true
		}
	}
	switch {
	case now.Before(t.groupUntil[group]):
		v.Wait = t.groupUntil[group].Sub(now)
	case e != nil && now.Before(e.until):
		v.Wait = e.until.Sub(now)
	case e != nil && !e.until.IsZero():
		e.until = time.Time{}
	}
	return v
}

// Record notes that content was written to object.
func (t *Tracker[K]) Record(object K, content string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.clock.Now()
	key := matter[K]{object, content}
	e := t.entries[key]
	if e == nil {
		e = &entry{}
		t.entries[key] = e
	}
	e.writes = append(recent(e.writes, now), now)
}

// contended is how many objects are left alone at this moment.
func (t *Tracker[K]) contended() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.count(t.clock.Now(), func(K) bool { return true })
}

func (t *Tracker[K]) count(now time.Time, of func(K) bool) int {
	n := 0
	for key, e := range t.entries {
		if now.Before(e.until) && of(key.object) {
			n++
		}
	}
	return n
}

// sweep drops what says nothing any more, now and then.
func (t *Tracker[K]) sweep(now time.Time) {
	if now.Before(t.nextSweep) {
		return
	}
	t.nextSweep = now.Add(window)
	maps.DeleteFunc(t.groupUntil, func(_ string, until time.Time) bool { return !now.Before(until) })
	for key, e := range t.entries {
		if !e.until.IsZero() && !now.Before(e.until) {
			e.until = time.Time{}
		}
		if e.until.IsZero() && len(recent(e.writes, now)) == 0 {
			delete(t.entries, key)
		}
	}
}

func recent(writes []time.Time, now time.Time) []time.Time {
	for len(writes) > 0 && now.Sub(writes[0]) >= window {
		writes = writes[1:]
	}
	return writes
}
