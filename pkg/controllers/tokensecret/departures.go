package tokensecret

import (
	"maps"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/utils/lru"

	"github.com/sakeeper/sakeeper/pkg/cache"
)

const (
	// quiet is how long an account's Secrets must stop going before its references are
	// written, so that a burst of deletions is one write. A burst that was seen to be fast
	// is over sooner: after pauses times its longest pause, and hush at least.
	quiet  = 250 * time.Millisecond
	hush   = 20 * time.Millisecond
	pauses = 2
	// patience is how long that may put a write off.
	patience = 2 * time.Second
	// memory is how long departures are remembered for an account that the cache does
	// not have: it is gone, or the cache lags. Watches that fail are tried again within
	// a minute.
	memory = 2 * time.Minute
)

// departures are token Secrets of one account that this process saw go, by name.
type departures map[string]departure

type departure struct {
	// account is the UID of the account as the Secret named it, empty when it did not.
	account types.UID
	secret  types.UID
}

// saw tells whether a Secret of that name went that belonged to account.
func (d departures) saw(name string, account types.UID) bool {
	gone, ok := d[name]
	return ok && (gone.account == "" || gone.account == account)
}

// goneSecrets remembers departures by account until they are settled: no reference to
// them is left at the API server. One that somebody writes after that is meant.
type goneSecrets struct {
	mu        sync.Mutex
	byAccount map[toolscache.ObjectName]*burst
	// settled are the last bursts that are settled, by account: one that goes on is as slow
	// as it turned out to be.
	settled *lru.Cache
}

// burst is what went of one account and is not settled.
type burst struct {
	first, last time.Time
	// pause is the longest one between two departures, zero while there was one only.
	pause      time.Duration
	departures departures
	// doubted: a write failed that was made by what the cache has.
	doubted bool
}

func newGoneSecrets() *goneSecrets {
	return &goneSecrets{byAccount: map[toolscache.ObjectName]*burst{}, settled: lru.New(1000)}
}

// end is when the burst is over, unless more goes.
func (b *burst) end() time.Time {
	calm := quiet
	if b.pause > 0 {
		calm = min(max(pauses*b.pause, hush), quiet)
	}
	if patient := b.first.Add(patience); patient.Before(b.last.Add(calm)) {
		return patient
	}
	return b.last.Add(calm)
}

// add remembers that secret went, and returns how long to wait until the burst is over.
func (g *goneSecrets) add(secret *cache.TokenSecret, now time.Time) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	b := g.byAccount[secret.AccountName()]
	if b == nil {
		b = &burst{departures: departures{}}
		if former, ok := g.settled.Get(secret.AccountName()); ok {
			b, _ = former.(*burst)
		}
		g.byAccount[secret.AccountName()] = b
	}
	if now.Sub(b.last) >= patience {
		b.first, b.pause = now, 0
	} else {
		b.pause = max(b.pause, now.Sub(b.last))
	}
	b.last = now
	b.departures[secret.Name] = departure{account: secret.AccountUID, secret: secret.UID}
	return b.end().Sub(now)
}

// of returns what is remembered for account, or how long to wait until the burst is
// over.
func (g *goneSecrets) of(account toolscache.ObjectName, now time.Time) (gone departures, wait time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	b := g.byAccount[account]
	if b == nil {
		return nil, 0
	}
	if wait := b.end().Sub(now); wait > 0 {
		return nil, wait
	}
	b.first = now // the next write of a burst that goes on waits again
	return maps.Clone(b.departures), 0
}

// settle forgets gone, but not what went since it was returned.
func (g *goneSecrets) settle(account toolscache.ObjectName, gone departures) {
	g.mu.Lock()
	defer g.mu.Unlock()
	b := g.byAccount[account]
	if b == nil {
		return
	}
	maps.DeleteFunc(b.departures, func(name string, d departure) bool { return gone[name] == d })
	b.doubted = false
	if len(b.departures) == 0 {
		delete(g.byAccount, account)
		g.settled.Add(account, b)
	}
}

// expire forgets what is remembered for an account that the cache does not have, in
// time, and returns when that is.
func (g *goneSecrets) expire(account toolscache.ObjectName, now time.Time) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	b := g.byAccount[account]
	if b == nil {
		return 0
	}
	if left := memory - now.Sub(b.last); left > 0 {
		return left
	}
	delete(g.byAccount, account)
	return 0
}

// doubt has the account read live before its references are written again.
func (g *goneSecrets) doubt(account toolscache.ObjectName) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if b := g.byAccount[account]; b != nil {
		b.doubted = true
	}
}

func (g *goneSecrets) doubted(account toolscache.ObjectName) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	b := g.byAccount[account]
	return b != nil && b.doubted
}
