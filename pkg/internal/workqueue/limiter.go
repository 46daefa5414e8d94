package workqueue

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
	"k8s.io/utils/clock"
)

// KeyedLimiter is a rate limiter that gives every key its own turn, so that ten thousand
// objects that need a write do not flood the API server. A burst of keys may go at once; the
// others get turns that are evenly spaced. It never blocks. It is safe for concurrent use.
type KeyedLimiter[K comparable] struct {
	clock     clock.PassiveClock
	perSecond rate.Limit
	burst     int

	mu      sync.Mutex
	limiter *rate.Limiter
	// turns has the keys that wait.
	turns map[K]*rate.Reservation
}

// NewKeyedLimiter returns a limiter of perSecond keys per second. After a time without keys,
// burst keys may go at once. Both must be positive.
func NewKeyedLimiter[K comparable](clock clock.PassiveClock, perSecond float64, burst int) *KeyedLimiter[K] {
	return &KeyedLimiter[K]{
		clock: clock, perSecond: rate.Limit(perSecond), burst: burst,
		limiter: rate.NewLimiter(rate.Limit(perSecond), burst), turns: map[K]*rate.Reservation{},
	}
}

// When returns how long key has to wait. If it returns zero, key may go now, and the next
// call is for a new turn; otherwise call again after that time. An earlier call does not
// change the turn of key.
func (l *KeyedLimiter[K]) When(key K) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.clock.Now()
	turn, ok := l.turns[key]
	if !ok {
		turn = l.limiter.ReserveN(now, 1)
	}
	if wait := turn.DelayFrom(now); wait > 0 {
		l.turns[key] = turn
		return wait
	}
	delete(l.turns, key)
	return 0
}

// Forget drops a key that waits. Its turn is not given to another key while others wait.
func (l *KeyedLimiter[K]) Forget(key K) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.turns[key]; !ok {
		return
	}
	delete(l.turns, key)
	if len(l.turns) == 0 {
		l.limiter = rate.NewLimiter(l.perSecond, l.burst)
		l.limiter.ReserveN(l.clock.Now(), l.burst) // they waited, so the burst is used up
	}
}
