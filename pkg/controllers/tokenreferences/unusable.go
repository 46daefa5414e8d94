package tokenreferences

import (
	"sync"

	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
)

// unusableReferences remembers the accounts that have an event about unusable references. It is safe
// for concurrent use.
type unusableReferences struct {
	mu       sync.Mutex
	accounts map[toolscache.ObjectName]types.UID
}

func newUnusableReferences() *unusableReferences {
	return &unusableReferences{accounts: map[toolscache.ObjectName]types.UID{}}
}

// changed returns true if the account has unusable references now and had none before.
func (u *unusableReferences) changed(account toolscache.ObjectName, uid types.UID, has bool) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !has {
		delete(u.accounts, account)
		return false
	}
	before, ok := u.accounts[account]
	u.accounts[account] = uid
	return !ok || before != uid
}
