package workqueue

import (
	"sync"
	"time"

	"k8s.io/utils/clock"
)

// Pace spreads work that nobody waits for over time, so that ten thousand objects
// that need a write at once do not flood the API server. A burst goes at once; the
// rest gets a slot each, evenly spaced. It is safe for concurrent use.
type KeyedLimiter[K comparable] struct {
	clock    clock.PassiveClock
	interval time.Duration
	burst    int

	mu sync.Mutex
	// next is the time of the next slot if there were no burst.
	next  time.Time
	slots map[K]time.Time
}

// NewPace allows perSecond keys in a second, and burst at once after a rest. Both
// must be positive.
func NewKeyedLimiter[K comparable](clock clock.PassiveClock, perSecond float64, burst int) *KeyedLimiter[K] {
	return &KeyedLimiter[K]{
		clock: clock, burst: burst, slots: map[K]time.Time{},
		interval: time.Duration(float64(time.Second) / perSecond),
	}
}

// Wait returns zero when it is key's turn, which is used up by that, and else how
// long that takes: ask again then. Asking earlier does not change the turn.
func (p *KeyedLimiter[K]) When(key K) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.clock.Now()
	slot, ok := p.slots[key]
	if !ok {
		if p.next.Before(now) {
			p.next = now
		}
		slot = p.next.Add(-time.Duration(p.burst-1) * p.interval)
		p.next = p.next.Add(p.interval)
	}
	if wait := slot.Sub(now); wait > 0 {
		p.slots[key] = slot
		return wait
	}
	delete(p.slots, key)
	return 0
}

// Forget gives back the turn of a key that needs none any more. The slot stays empty
// while others wait for theirs.
func (p *KeyedLimiter[K]) Forget(key K) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.slots[key]; !ok {
		return
	}
	delete(p.slots, key)
	if spent := p.clock.Now().Add(time.Duration(p.burst) * p.interval); len(p.slots) == 0 && p.next.After(spent) {
		p.next = spent // as if the burst had just been used
	}
}
