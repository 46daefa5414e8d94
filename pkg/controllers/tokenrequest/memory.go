package tokenrequest

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/cache"
)

// staleAtMost is how long the cache may lag behind a write. After that it is believed:
// versions begin anew where etcd was restored.
const staleAtMost = time.Minute

// note is what this process remembers of one Secret; never a token.
type note struct {
	// version is that of the Secret after the last write, which was at written.
	version string
	written time.Time
	// hash is what the token that was last written is told by, and requested when it was
	// asked for, by the controller's stopwatch.
	hash      string
	requested time.Duration
	// failing is since when renewing fails; zero: it does not.
	failing time.Time
	// conflicts is how many writes in a row were answered with a conflict, the last one at
	// conflicted with that version of the Secret.
	conflicts  int
	conflicted time.Time
	conflict   string
	// told is what people were last told.
	told refusal
}

// notes are by UID of the Secret. Without a note, all is done that is right for a
// process that has just started.
type notes struct {
	mu       sync.Mutex
	bySecret map[types.UID]note
}

func newNotes() *notes { return &notes{bySecret: map[types.UID]note{}} }

func (n *notes) of(secret types.UID) note {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.bySecret[secret]
}

func (n *notes) update(secret types.UID, change func(*note)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	changed := n.bySecret[secret]
	change(&changed)
	if changed == (note{}) {
		delete(n.bySecret, secret)
		return
	}
	n.bySecret[secret] = changed
}

func (n *notes) forget(secret types.UID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.bySecret, secret)
}

// outran tells whether cached does not show yet what was written.
func (n note) outran(cached *cache.ManagedSecret, now time.Time) bool {
	if n.version == "" || now.Sub(n.written) > staleAtMost {
		return false
	}
	order, err := resourceversion.CompareResourceVersion(cached.ResourceVersion, n.version)
	return err == nil && order < 0
}

// rest is how long not to try again what conflicts, and costs a token each time. After a
// single conflict, a cache that has something newer is enough.
func (n note) rest(cached *cache.ManagedSecret, now time.Time) time.Duration {
	if n.conflicts == 0 || n.conflicts == 1 && n.conflict != cached.ResourceVersion {
		return 0
	}
	delay := min(lookAgain<<min(n.conflicts-1, 10), retryOutage)
	return min(n.conflicted.Add(delay).Sub(now), delay)
}

// age is how long before now this process asked for the token of cached; nil: it did not.
func (n note) age(cached *cache.ManagedSecret, now time.Duration) *time.Duration {
	if n.hash == "" || n.hash != cached.Annotations[api.FilledHashAnnotation] {
		return nil
	}
	return new(now - n.requested)
}
