package tokensecret

import (
	"maps"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/sakeeper/sakeeper/pkg/cache"
)

const (
	// manySecrets is how many Secrets without their account a list may leave before the list is
	// doubted; a tenth of all Secrets is too many too.
	manySecrets = 20
	// doubtedFor is how long the account of a doubted Secret must be missing.
	doubtedFor = 10 * time.Second
	// listWindow is how long after the last account that a list lacked the list is taken for handled.
	listWindow = time.Second
	// doubtedDeletionsPerSecond limits deletions of doubted Secrets.
	doubtedDeletionsPerSecond = 10
)

// tooMany returns true if a list that leaves orphans of total Secrets without their account is
// doubted.
func tooMany(orphans, total int) bool { return orphans > manySecrets || orphans*10 > total }

// doubts holds the Secrets that a list left without their account: before they are deleted, an API
// server that answers lists and GETs wrongly, such as right after its start, must have time to
// recover. It is safe for concurrent use.
type doubts struct {
	mu sync.Mutex
	// listed are the Secrets of the first list, and orphaned those of accounts that a later list
	// lacked, the last one at orphanedAt. Both are empty when they have been counted.
	listed, orphaned map[toolscache.ObjectName]types.UID
	orphanedAt       time.Time
	// doubted are the Secrets that need a second search for their account.
	doubted map[toolscache.ObjectName]types.UID
}

func newDoubts() *doubts {
	return &doubts{
		listed: map[toolscache.ObjectName]types.UID{}, orphaned: map[toolscache.ObjectName]types.UID{}, doubted: map[toolscache.ObjectName]types.UID{},
	}
}

func (d *doubts) addListed(secret *cache.TokenSecret) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.listed[toolscache.MetaObjectToName(secret)] = secret.UID
}

func (d *doubts) addOrphaned(secret *cache.TokenSecret, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.orphaned[toolscache.MetaObjectToName(secret)] = secret.UID
	d.orphanedAt = now
}

// count doubts the Secrets that lists left without their account, if they are too many of total.
// Call it before each sync. It returns how many are doubted now and were not, and for a secret of a
// list that may not be handled completely, how long to wait.
func (d *doubts) count(secret toolscache.ObjectName, now time.Time, total func() int, isOrphan func(toolscache.ObjectName, types.UID) bool) (doubted int, wait time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	counted := d.listed
	_, orphaned := d.orphaned[secret]
	switch left := min(d.orphanedAt.Add(listWindow).Sub(now), listWindow); {
	case len(d.orphaned) == 0:
	case left <= 0: // the list is complete
		maps.Copy(counted, d.orphaned)
		d.orphaned = map[toolscache.ObjectName]types.UID{}
	case orphaned:
		wait = left
	}
	if len(counted) == 0 {
		return 0, wait
	}
	d.listed = map[toolscache.ObjectName]types.UID{}
	orphans := map[toolscache.ObjectName]types.UID{}
	for name, uid := range counted {
		if isOrphan(name, uid) {
			orphans[name] = uid
		}
	}
	if !tooMany(len(orphans), total()) {
		return 0, wait
	}
	maps.Copy(d.doubted, orphans)
	return len(orphans), wait
}

func (d *doubts) includes(secret *cache.TokenSecret) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	uid, ok := d.doubted[toolscache.MetaObjectToName(secret)]
	return ok && uid == secret.UID
}

func (d *doubts) forget(secret toolscache.ObjectName) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.doubted, secret)
}
