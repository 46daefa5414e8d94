package tokensecret

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/sakeeper/sakeeper/pkg/informers"
)

const (
	// quiet is how long an account's Secrets must stop going before its references
	// are written, so that a burst of deletions is one write.
	quiet = 250 * time.Millisecond
	// patience is how long that may put a write off.
	patience = 2 * time.Second
	// grace is how long a Secret may be missing after its account was written: tools
	// that restore or apply both often write the account first.
	grace = 5 * time.Second
)

func (c *Controller) syncReferences(ctx context.Context, key cache.ObjectName) (time.Duration, error) {
	gone, wait := c.goneSecrets.take(key, c.cfg.Clock.Now())
	if wait > 0 {
		return wait, nil
	}
	account, ok := informers.Get(c.cfg.ServiceAccounts, key.String())
	if !ok {
		return 0, nil
	}
	stale, unsure, err := c.stale(ctx, account, gone)
	if err == nil && len(stale) > 0 {
		err = c.dropReferences(ctx, account, stale)
	}
	if err != nil {
		// What was seen going is known nowhere else.
		c.goneSecrets.giveBack(key, gone)
	}
	switch {
	case apierrors.IsConflict(err):
		return quiet, nil // the account changed, and the cache will soon show how
	case err == nil && unsure:
		return grace, nil
	default:
		return 0, err
	}
}

// stale returns the names in account.secrets that must go. Where Secrets were seen
// going, others that are merely missing wait for their turn: the account may have
// been written a moment ago. It is unsure about those.
func (c *Controller) stale(ctx context.Context, account *corev1.ServiceAccount, gone departures) (stale map[string]bool, unsure bool, err error) {
	stale = map[string]bool{}
	for _, ref := range account.Secrets {
		key := cache.ObjectName{Namespace: account.Namespace, Name: ref.Name}
		_, cached := informers.Get(c.cfg.Secrets, key.String())
		switch judge(reference{account: account.Name, name: ref.Name, cached: cached, seenGoing: gone.saw(ref.Name, account.UID)}) {
		case drop:
			stale[ref.Name] = true
		case ask:
			if len(gone) > 0 {
				unsure = true
				continue
			}
			exists, err := c.exists(ctx, key)
			if err != nil {
				return nil, false, err
			}
			if !exists {
				stale[ref.Name] = true
			}
		case keep:
		}
	}
	return stale, unsure, nil
}

func (c *Controller) exists(ctx context.Context, secret cache.ObjectName) (bool, error) {
	resource := corev1.SchemeGroupVersion.WithResource("secrets")
	_, err := c.cfg.Metadata.Resource(resource).Namespace(secret.Namespace).Get(ctx, secret.Name, metav1.GetOptions{})
	switch {
	case err == nil:
		return true, nil
	case apierrors.IsNotFound(err):
		return false, nil
	default:
		return false, fmt.Errorf("get secret %s: %w", secret, err)
	}
}

func (c *Controller) dropReferences(ctx context.Context, account *corev1.ServiceAccount, stale map[string]bool) error {
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": account.UID, "resourceVersion": account.ResourceVersion},
		"secrets":  without(account.Secrets, stale),
	})
	if err != nil {
		return err
	}
	_, err = c.cfg.Client.ServiceAccounts(account.Namespace).Patch(ctx, account.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	switch {
	case err == nil:
		klog.FromContext(ctx).V(2).Info("Dropped references to secrets that are gone", "serviceAccount", klog.KObj(account), "count", len(stale))
		return nil
	case apierrors.IsNotFound(err):
		return nil // it went, and its references with it
	default:
		return fmt.Errorf("patch service account %s: %w", klog.KObj(account), err)
	}
}

// departures are token Secrets of one account that this process saw go, by name,
// with the account's UID as each of them named it (empty when it did not).
type departures map[string]types.UID

// saw tells whether a Secret of that name went that belonged to account.
func (d departures) saw(name string, account types.UID) bool {
	uid, ok := d[name]
	return ok && (uid == "" || uid == account)
}

// goneSecrets gathers departures until they are acted on. Each is acted on once:
// a reference that somebody writes after that is meant.
type goneSecrets struct {
	mu        sync.Mutex
	byAccount map[cache.ObjectName]*burst
}

type burst struct {
	first, last time.Time
	departures  departures
}

func newGoneSecrets() *goneSecrets {
	return &goneSecrets{byAccount: map[cache.ObjectName]*burst{}}
}

func (g *goneSecrets) add(secret *informers.TokenSecret, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	b := g.byAccount[secret.AccountName()]
	if b == nil {
		b = &burst{first: now, departures: departures{}}
		g.byAccount[secret.AccountName()] = b
	}
	b.last = now
	b.departures[secret.Name] = secret.AccountUID
}

// take hands out what was gathered for account, or says how long to wait for more.
func (g *goneSecrets) take(account cache.ObjectName, now time.Time) (departures, time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	b := g.byAccount[account]
	if b == nil {
		return nil, 0
	}
	if wait := min(quiet-now.Sub(b.last), patience-now.Sub(b.first)); wait > 0 {
		return nil, wait
	}
	delete(g.byAccount, account)
	return b.departures, 0
}

// giveBack undoes a take. The burst that it makes is old enough to be taken at
// once.
func (g *goneSecrets) giveBack(account cache.ObjectName, gone departures) {
	if len(gone) == 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	b := g.byAccount[account]
	if b == nil {
		b = &burst{departures: departures{}}
		g.byAccount[account] = b
	}
	for name, uid := range gone {
		if _, newer := b.departures[name]; !newer {
			b.departures[name] = uid
		}
	}
}
