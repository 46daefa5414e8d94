package tokensecret

import (
	"sync"

	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/sakeeper/sakeeper/pkg/cache"
)

// told remembers the last event on each Secret that is left alone, so that there is one event as long
// as nothing changes. It is safe for concurrent use.
type told struct {
	mu       sync.Mutex
	bySecret map[toolscache.ObjectName]toldEvent
}

type toldEvent struct {
	secret types.UID
	text   string
}

func newTold() *told { return &told{bySecret: map[toolscache.ObjectName]toldEvent{}} }

// first returns true if text differs from the last event on secret.
func (t *told) first(secret *cache.TokenSecret, text string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	key, event := toolscache.MetaObjectToName(secret), toldEvent{secret: secret.UID, text: text}
	if t.bySecret[key] == event {
		return false
	}
	t.bySecret[key] = event
	return true
}

func (t *told) forget(secret toolscache.ObjectName) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.bySecret, secret)
}
