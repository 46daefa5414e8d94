package tokenrequest

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/cache"
)

// maxCacheLag is how long the cache may lag behind a write. After that it is trusted:
// resourceVersions start again when etcd is restored.
const maxCacheLag = time.Minute

// note is what this process remembers of one Secret; never a token.
type note struct {
	// writtenVersion is the resourceVersion after the last write, which was at writtenAt.
	writtenVersion string
	writtenAt      time.Time
	// hash is the filled hash of the token that was last written, and requestedAt when that
	// token was requested, by the controller's stopwatch.
	hash        string
	requestedAt time.Duration
	// failingSince is when renewals began to fail; zero: they do not.
	failingSince time.Time
	// conflicts counts consecutive writes that failed with a conflict, the last one at
	// conflictAt with conflictVersion of the Secret.
	conflicts       int
	conflictAt      time.Time
	conflictVersion string
	// problem is the last one that decide found.
	problem problem
	// unwritable is the text of a problem that the API server refuses to have written.
	unwritable string
}

// notes holds a note by UID of the Secret. A Secret without a note is handled as after a
// restart. It is safe for concurrent use.
type notes struct {
	mu       sync.Mutex
	bySecret map[types.UID]note
}

func newNotes() *notes { return &notes{bySecret: map[types.UID]note{}} }

func (n *notes) get(secret types.UID) note {
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

func (n *notes) delete(secret types.UID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.bySecret, secret)
}

// renewed notes that a token was written, or removed: both end a failure.
func renewed(hash string, requestedAt time.Duration) func(*note) {
	return func(n *note) { n.hash, n.requestedAt, n.failingSince, n.conflicts = hash, requestedAt, time.Time{}, 0 }
}

// isNewerThan returns true if cached does not show yet what was written.
func (n note) isNewerThan(cached *cache.ManagedSecret, now time.Time) bool {
	if n.writtenVersion == "" || now.Sub(n.writtenAt) > maxCacheLag {
		return false
	}
	order, err := resourceversion.CompareResourceVersion(cached.ResourceVersion, n.writtenVersion)
	return err == nil && order < 0
}

// conflictDelay returns how long to wait before another attempt, which costs a token,
// after conflicts. After a single conflict, a newer version in the cache needs no wait.
func (n note) conflictDelay(cached *cache.ManagedSecret, now time.Time) time.Duration {
	if n.conflicts == 0 || n.conflicts == 1 && n.conflictVersion != cached.ResourceVersion {
		return 0
	}
	delay := min(requeueAfter<<min(n.conflicts-1, 10), maxOutageDelay)
	return min(n.conflictAt.Add(delay).Sub(now), delay)
}

// age returns how long ago this process requested the token of cached; nil: it did not.
func (n note) age(cached *cache.ManagedSecret, now time.Duration) *time.Duration {
	if n.hash == "" || n.hash != cached.Annotations[api.FilledHashAnnotation] {
		return nil
	}
	return new(now - n.requestedAt)
}
