package workqueue

import (
	"sync"
	"time"

	"k8s.io/utils/clock"
)

// KeyedLimiter is a rate limiter that gives every key its own time, so that ten thousand
// objects that need a write do not flood the API server. A burst of keys may go at once; the
// others get times that are evenly spaced. It never blocks. It is safe for concurrent use.
type KeyedLimiter[K comparable] struct {
	clock    clock.PassiveClock
	interval time.Duration
	burst    int

	mu sync.Mutex
	// next is the time that the next new key would get without the burst.
	next time.Time
	// times has the keys that wait.
	times map[K]time.Time
}

// NewKeyedLimiter returns a limiter of perSecond keys per second. After a time without keys,
// burst keys may go at once. Both must be positive.
func NewKeyedLimiter[K comparable](clock clock.PassiveClock, perSecond float64, burst int) *KeyedLimiter[K] {
	return &KeyedLimiter[K]{
		clock: clock, burst: burst, times: map[K]time.Time{},
		interval: time.Duration(float64(time.Second) / perSecond),
	}
}

// When returns how long key has to wait. If it returns zero, key may go now, and the next
// call is for a new turn; otherwise call again after that time. An earlier call does not
// change the time of key.
func (l *KeyedLimiter[K]) When(key K) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.clock.Now()
	at, ok := l.times[key]
	if !ok {
		if l.next.Before(now) {
			l.next = now
		}
		at = l.next.Add(-time.Duration(l.burst-1) * l.interval)
		l.next = l.next.Add(l.interval)
	}
	if wait := at.Sub(now); wait > 0 {
		l.times[key] = at
		return wait
	}
	delete(l.times, key)
	return 0
}

// Forget drops a key that waits. Its time is not given to another key while others wait.
func (l *KeyedLimiter[K]) Forget(key K) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.times[key]; !ok {
		return
	}
	delete(l.times, key)
	if spent := l.clock.Now().Add(time.Duration(l.burst) * l.interval); len(l.times) == 0 && l.next.After(spent) {
		l.next = spent // as if the burst had just been used
	}
}
