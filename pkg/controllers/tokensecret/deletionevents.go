package tokensecret

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/kube"
)

const (
	// deletionEventsAfter is how long an event about deleted Secrets waits for more of them, so that
	// many deletions do not cost as many requests.
	deletionEventsAfter = 5 * time.Second
	// namedInEvent is how many Secrets an event names, because the API server limits its size.
	namedInEvent = 5
)

// deletedSecret is a Secret that was deleted for want of its account.
type deletedSecret struct{ name, account, reason string }

// deletionEvent identifies an event that waits for more deletions: those of Secrets without an account
// and those of Secrets for another UID are told apart.
type deletionEvent struct {
	namespace string
	otherUID  bool
}

// deletionEvents records events about deleted Secrets on their namespaces, because a deleted object
// has no events: one event for all that were deleted in a namespace at about the same time for the same
// reason. It is safe for concurrent use.
type deletionEvents struct {
	namespaces toolscache.TypedSharedIndexInformer[*corev1.Namespace]
	recorder   record.EventRecorder
	added      chan struct{}

	mu      sync.Mutex
	pending map[deletionEvent][]deletedSecret
}

func newDeletionEvents(cfg Config) *deletionEvents {
	return &deletionEvents{namespaces: cfg.Namespaces, recorder: cfg.Recorder, added: make(chan struct{}, 1), pending: map[deletionEvent][]deletedSecret{}}
}

func (d *deletionEvents) add(deleted *cache.TokenSecret, o owner) {
	reason := fmt.Sprintf("its service account %s does not exist", deleted.Account)
	if o.otherUID != "" {
		reason = fmt.Sprintf("it is for another UID of service account %s: it names %s, and the account has %s", deleted.Account, deleted.AccountUID, o.otherUID)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	event := deletionEvent{deleted.Namespace, o.otherUID != ""}
	d.pending[event] = append(d.pending[event], deletedSecret{deleted.Name, deleted.Account, reason})
	select {
	case d.added <- struct{}{}:
	default: // run knows already
	}
}

// run records events until ctx ends.
func (d *deletionEvents) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.added:
		}
		select {
		case <-ctx.Done():
		case <-time.After(deletionEventsAfter):
		}
		d.flush()
	}
}

// flush records what is pending.
func (d *deletionEvents) flush() {
	d.mu.Lock()
	pending := d.pending
	d.pending = map[deletionEvent][]deletedSecret{}
	d.mu.Unlock()
	for event, deleted := range pending {
		d.record(event, deleted)
	}
}

func (d *deletionEvents) record(event deletionEvent, deleted []deletedSecret) {
	ref := kube.NamespaceReference(event.namespace)
	ref.Namespace = event.namespace // so that it is among the events of this namespace
	if ns, ok := cache.Get(d.namespaces, event.namespace); ok {
		if ns.Status.Phase == corev1.NamespaceTerminating {
			return // it takes no events
		}
		ref.UID = ns.UID
	}
	slices.SortFunc(deleted, func(a, b deletedSecret) int { return strings.Compare(a.name, b.name) })
	d.recorder.Event(ref, corev1.EventTypeWarning, api.ReasonDeletedTokenSecret, deletionText(event.otherUID, deleted))
}

func deletionText(otherUID bool, deleted []deletedSecret) string {
	if len(deleted) == 1 {
		return fmt.Sprintf("Deleted token secret %s, because %s", deleted[0].name, deleted[0].reason)
	}
	var named []string
	for _, d := range deleted[:min(len(deleted), namedInEvent)] {
		named = append(named, fmt.Sprintf("%s (of %s)", shortened(d.name), shortened(d.account)))
	}
	why := "their service accounts do not exist"
	if otherUID {
		why = "they are for other UIDs than their service accounts have"
	}
	text := fmt.Sprintf("Deleted %d token secrets, because %s: %s", len(deleted), why, strings.Join(named, ", "))
	if more := len(deleted) - len(named); more > 0 {
		text += fmt.Sprintf(", and %d more", more)
	}
	return text
}

// shortened keeps the text of an event far below the limit of 1,024 bytes: names may have 253.
func shortened(name string) string {
	const most = 80
	if len(name) <= most {
		return name
	}
	return name[:most] + "..."
}
