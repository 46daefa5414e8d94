package tokenreferences

import (
	"maps"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/sakeeper/sakeeper/pkg/cache"
)

// batchWindow is how long a deletion waits for the next one of the same account, so that they are
// one write. A batch ends after maxWindows of them, however many deletions follow.
const (
	batchWindow = 50 * time.Millisecond
	maxWindows  = 20
)

// memory is how long deletions are remembered for an account that the cache does not have: it is
// deleted, or the cache lags. Broken watches are retried within a minute.
const memory = 2 * time.Minute

// deletedSecret identifies a Secret that was deleted.
type deletedSecret struct {
	// account is the UID of the account as the Secret named it, empty if it named none.
	account types.UID
	secret  types.UID
}

// deletedSecrets are token Secrets of one account whose deletion this process saw, by name.
type deletedSecrets map[string]deletedSecret

// includes returns true if a Secret of that name that belonged to account was deleted.
func (d deletedSecrets) includes(name string, account types.UID) bool {
	deleted, ok := d[name]
	return ok && (deleted.account == "" || deleted.account == account)
}

// deletions remembers deleted Secrets, by account, until the account at the API server has no
// reference to them. References that are written after that stay. It is safe for concurrent use.
type deletions struct {
	mu        sync.Mutex
	byAccount map[toolscache.ObjectName]*batch
}

// batch holds the deleted Secrets of one account.
type batch struct {
	first, last time.Time // deletions
	secrets     deletedSecrets
	// needsLiveRead: a write failed that was based on the cached account.
	needsLiveRead bool
}

func newDeletions() *deletions {
	return &deletions{byAccount: map[toolscache.ObjectName]*batch{}}
}

// add remembers the deletion of secret.
func (d *deletions) add(secret *cache.TokenSecret, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	b := d.byAccount[secret.AccountName()]
	if b == nil {
		b = &batch{first: now, secrets: deletedSecrets{}}
		d.byAccount[secret.AccountName()] = b
	}
	b.last = now
	b.secrets[secret.Name] = deletedSecret{account: secret.AccountUID, secret: secret.UID}
}

// get returns a copy of what is remembered for account, or how long to wait until its batch ends.
func (d *deletions) get(account toolscache.ObjectName, now time.Time) (deleted deletedSecrets, wait time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	b := d.byAccount[account]
	if b == nil {
		return nil, 0
	}
	if wait := min(b.last.Add(batchWindow).Sub(now), b.first.Add(maxWindows*batchWindow).Sub(now)); wait > 0 {
		return nil, wait
	}
	return maps.Clone(b.secrets), 0
}

// done forgets the handled deletions, but not those that were added since they were read.
func (d *deletions) done(account toolscache.ObjectName, handled deletedSecrets) {
	d.mu.Lock()
	defer d.mu.Unlock()
	b := d.byAccount[account]
	if b == nil {
		return
	}
	maps.DeleteFunc(b.secrets, func(name string, s deletedSecret) bool { return handled[name] == s })
	b.first, b.needsLiveRead = b.last, false
	if len(b.secrets) == 0 {
		delete(d.byAccount, account)
	}
}

// expire forgets the deletions of an account that the cache does not have, once they are old, and
// returns how long that takes.
func (d *deletions) expire(account toolscache.ObjectName, now time.Time) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	b := d.byAccount[account]
	if b == nil {
		return 0
	}
	if left := memory - now.Sub(b.last); left > 0 {
		return left
	}
	delete(d.byAccount, account)
	return 0
}

// requireLiveRead has the account read live before its references are written again.
func (d *deletions) requireLiveRead(account toolscache.ObjectName) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if b := d.byAccount[account]; b != nil {
		b.needsLiveRead = true
	}
}

// liveReadRequired returns true after requireLiveRead, until deletions of the account are done.
func (d *deletions) liveReadRequired(account toolscache.ObjectName) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	b := d.byAccount[account]
	return b != nil && b.needsLiveRead
}
