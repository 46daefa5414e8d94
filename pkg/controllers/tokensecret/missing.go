package tokensecret

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/sakeeper/sakeeper/pkg/cache"
)

// missingAccounts remembers the Secrets whose ServiceAccount was not found. It is safe for concurrent
// use.
type missingAccounts struct {
	mu       sync.Mutex
	bySecret map[toolscache.ObjectName]missingAccount
}

// missingAccount is the search for the ServiceAccount of one Secret.
type missingAccount struct {
	secret     types.UID
	account    string
	accountUID types.UID
	// since is when the account was first not found, zero while the first search goes on.
	since time.Time
}

func newMissingAccounts() *missingAccounts {
	return &missingAccounts{bySecret: map[toolscache.ObjectName]missingAccount{}}
}

// search remembers that the account of secret is searched for, so that its creation is not missed
// between the search and the call of notFound.
func (m *missingAccounts) search(secret *cache.TokenSecret) {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := toolscache.MetaObjectToName(secret)
	if wanted := m.entry(key, secret); wanted.since.IsZero() {
		m.bySecret[key] = wanted
	}
}

// notFound returns for how long the account of secret has not been found, zero the first time.
func (m *missingAccounts) notFound(secret *cache.TokenSecret, now time.Time) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := toolscache.MetaObjectToName(secret)
	found := m.entry(key, secret)
	if found.since.IsZero() {
		found.since = now
		m.bySecret[key] = found
	}
	return now.Sub(found.since)
}

// entry returns what is remembered about secret, or a new entry if that is about another Secret or
// another account.
func (m *missingAccounts) entry(key toolscache.ObjectName, secret *cache.TokenSecret) missingAccount {
	entry := missingAccount{secret: secret.UID, account: secret.Account, accountUID: secret.AccountUID}
	if found, ok := m.bySecret[key]; ok {
		entry.since = found.since
		if entry != found {
			entry.since = time.Time{}
		}
	}
	return entry
}

func (m *missingAccounts) includes(secret toolscache.ObjectName) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.bySecret[secret]
	return ok
}

func (m *missingAccounts) empty() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.bySecret) == 0
}

func (m *missingAccounts) forget(secret toolscache.ObjectName) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.bySecret, secret)
}
