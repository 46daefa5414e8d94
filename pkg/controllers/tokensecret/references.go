package tokensecret

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
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
	// grace is how long a Secret that went is remembered, because the cache may not
	// show the reference yet, and how long a Secret may be missing after its account
	// was written, because tools that apply or restore both write the account first.
	grace = 5 * time.Second
)

func (c *Controller) syncReferences(ctx context.Context, key cache.ObjectName) (time.Duration, error) {
	gone, again, settled := c.departed.of(key, c.cfg.Clock.Now())
	account, ok := informers.Get(c.cfg.ServiceAccounts, key.String())
	if !settled || !ok {
		return again, nil
	}
	stale, err := c.stale(ctx, account, gone)
	if err != nil {
		return 0, err
	}
	if len(stale) == 0 {
		if len(gone) > 0 {
			return again, nil // what dangles is counted when all is quiet
		}
		return c.countDangling(ctx, account)
	}
	wait, err := c.dropReferences(ctx, account, stale)
	switch {
	case wait > 0:
		return wait, nil
	case apierrors.IsConflict(err):
		// The account changed. Its event decides anew, and what was seen going lives
		// until the cache shows that event.
		return c.departed.retain(key), nil
	case err != nil:
		c.departed.retain(key)
		return 0, err
	}
	c.departed.forget(key, stale)
	return again, nil
}

// stale returns the names in account.secrets that must go. While Secrets that were
// seen going are judged, those that are merely missing wait.
func (c *Controller) stale(ctx context.Context, account *corev1.ServiceAccount, gone departures) (map[string]bool, error) {
	stale := map[string]bool{}
	for _, ref := range account.Secrets {
		switch c.judgeReference(account, ref.Name, gone) {
		case drop:
			stale[ref.Name] = true
		case ask:
			if len(gone) > 0 {
				continue
			}
			exists, err := c.exists(ctx, cache.ObjectName{Namespace: account.Namespace, Name: ref.Name})
			if err != nil {
				return nil, err
			}
			if !exists {
				stale[ref.Name] = true
			}
		case keep, look:
		}
	}
	return stale, nil
}

func (c *Controller) judgeReference(account *corev1.ServiceAccount, name string, gone departures) staleness {
	_, cached := informers.Get(c.cfg.Secrets, account.Namespace+"/"+name)
	return judge(reference{account: account.Name, name: name, cached: cached, seenGoing: gone.saw(name, account.UID)})
}

// recount is how often references that dangle are looked at again: what they name
// may be a Secret of another type, whose creation is not seen.
const recount = time.Hour

// countDangling counts the references that stay although nothing is there.
func (c *Controller) countDangling(ctx context.Context, account *corev1.ServiceAccount) (time.Duration, error) {
	key := cache.MetaObjectToName(account)
	var names []cache.ObjectName
	for _, ref := range account.Secrets {
		if c.judgeReference(account, ref.Name, nil) == look {
			names = append(names, cache.ObjectName{Namespace: account.Namespace, Name: ref.Name})
		}
	}
	if len(names) == 0 {
		c.dangling.set(key, 0)
		return 0, nil
	}
	if wait := c.rests.looks.Wait(key); wait > 0 {
		return wait, nil
	}
	missing := 0
	for _, name := range names {
		exists, err := c.exists(ctx, name)
		if err != nil {
			return 0, err
		}
		if !exists {
			missing++
		}
	}
	c.dangling.set(key, missing)
	if missing == 0 {
		return 0, nil
	}
	return recount, nil
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

func (c *Controller) dropReferences(ctx context.Context, account *corev1.ServiceAccount, stale map[string]bool) (time.Duration, error) {
	object := contested{namespace: account.Namespace, name: account.Name, uid: string(account.UID)}
	content := strings.Join(slices.Sorted(maps.Keys(stale)), " ")
	if wait := c.truce(ctx, c.rests.references, object, content, &corev1.ObjectReference{
		Kind: "ServiceAccount", APIVersion: "v1", Namespace: account.Namespace, Name: account.Name, UID: account.UID,
	}); wait > 0 {
		return wait, nil
	}
	patch, err := mergePatch(&account.ObjectMeta, nil, map[string]any{"secrets": without(account.Secrets, stale)})
	if err != nil {
		return 0, err
	}
	_, err = c.cfg.Client.ServiceAccounts(account.Namespace).Patch(ctx, account.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	switch {
	case err == nil:
		c.rests.references.Wrote(object, content)
		klog.FromContext(ctx).V(2).Info("Dropped references to secrets that are gone", "serviceAccount", klog.KObj(account), "count", len(stale))
		return 0, nil
	case apierrors.IsNotFound(err):
		return 0, nil // it went, and its references with it
	default:
		return 0, fmt.Errorf("patch service account %s: %w", klog.KObj(account), err)
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

// goneSecrets remembers departures until their references were dropped, or for
// grace: a reference that somebody writes after that is meant.
type goneSecrets struct {
	mu        sync.Mutex
	byAccount map[cache.ObjectName]*burst
}

type burst struct {
	first, last time.Time
	since       time.Time // grace runs from here
	departures  departures
	retained    bool // a write failed: grace begins anew
}

func newGoneSecrets() *goneSecrets {
	return &goneSecrets{byAccount: map[cache.ObjectName]*burst{}}
}

func (g *goneSecrets) add(secret *informers.TokenSecret, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	b := g.byAccount[secret.AccountName()]
	if b == nil || now.Sub(b.last) >= patience {
		b = &burst{first: now, departures: b.rest()}
		g.byAccount[secret.AccountName()] = b
	}
	b.last, b.since = now, now
	b.departures[secret.Name] = secret.AccountUID
}

// rest is what a new burst takes over.
func (b *burst) rest() departures {
	if b == nil {
		return departures{}
	}
	return b.departures
}

// of returns what is remembered for account, when to look again (zero: no need),
// and whether the burst has settled.
func (g *goneSecrets) of(account cache.ObjectName, now time.Time) (gone departures, again time.Duration, settled bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	b := g.byAccount[account]
	if b == nil {
		return nil, 0, true
	}
	if wait := min(quiet-now.Sub(b.last), patience-now.Sub(b.first)); wait > 0 {
		return nil, wait, false
	}
	b.first = now // the next write of a burst that goes on waits again
	if b.retained {
		b.retained, b.since = false, now // not last: a failed write must not put off the next
	}
	left := grace - now.Sub(b.since)
	if left <= 0 {
		delete(g.byAccount, account)
		return nil, 0, true
	}
	return maps.Clone(b.departures), left, true
}

// forget drops the names that were acted on.
func (g *goneSecrets) forget(account cache.ObjectName, names map[string]bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	b := g.byAccount[account]
	if b == nil {
		return
	}
	for name := range names {
		delete(b.departures, name)
	}
	if len(b.departures) == 0 {
		delete(g.byAccount, account)
	}
}

// retain keeps what is remembered until it was judged once more, however long that
// takes, and returns when to try.
func (g *goneSecrets) retain(account cache.ObjectName) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	b := g.byAccount[account]
	if b == nil {
		return 0
	}
	b.retained = true
	return time.Second
}
