package tokensecret

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/internal/workqueue"
	"github.com/sakeeper/sakeeper/pkg/kube"
)

// grace is how long a Secret may be missing after its account was written, because
// tools that apply or restore both write the account first.
const grace = 5 * time.Second

func (c *Controller) syncReferences(ctx context.Context, key toolscache.ObjectName) (time.Duration, error) {
	gone, wait := c.departed.of(key, c.cfg.Clock.Now())
	if wait > 0 {
		return wait, nil
	}
	account, ok := cache.Get(c.cfg.ServiceAccounts, key.String())
	if !ok {
		c.dangling.set(key, 0)
		c.rests.looks.Forget(key)
		return c.departed.expire(key, c.cfg.Clock.Now()), nil
	}
	if c.departed.doubted(key) || c.unseen(account, gone) {
		// The cache may lag by any time, for example after an outage.
		live, err := c.cfg.Client.ServiceAccounts(key.Namespace).Get(ctx, key.Name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			c.departed.settle(key, gone)
			return 0, nil
		case err != nil:
			return 0, fmt.Errorf("get service account %s: %w", key, err)
		}
		account = live
	}
	return c.mendReferences(ctx, account, gone)
}

// unseen tells whether account, as the cache has it, does not refer to a Secret of it
// that went: it may be a version from before the reference.
func (c *Controller) unseen(account *corev1.ServiceAccount, gone departures) bool {
	for name, secret := range gone {
		_, back := cache.Get(c.cfg.Secrets, account.Namespace+"/"+name)
		_, former := c.owners.gone.Get(secret.account)
		refers := slices.ContainsFunc(account.Secrets, func(ref corev1.ObjectReference) bool { return ref.Name == name })
		if !back && !former && !refers {
			return true
		}
	}
	return false
}

func (c *Controller) mendReferences(ctx context.Context, account *corev1.ServiceAccount, gone departures) (time.Duration, error) {
	key := toolscache.MetaObjectToName(account)
	if wait := c.turnToAsk(account, gone); wait > 0 {
		return wait, workqueue.ErrRequeueLater
	}
	stale, err := c.stale(ctx, account, gone)
	switch {
	case err != nil:
		return 0, err
	case len(stale) > 0:
		wait, err := c.dropReferences(ctx, account, stale)
		if wait > 0 {
			return wait, nil
		}
		if err != nil {
			c.departed.doubt(key)
		}
		if apierrors.IsConflict(err) {
			return lookAgain, nil
		}
		if err != nil {
			return 0, err
		}
	}
	c.departed.settle(key, gone)
	switch {
	case len(gone) == 0 && len(stale) == 0:
		return c.countDangling(ctx, account)
	case len(without(account.Secrets, stale)) == 0:
		c.dangling.set(key, 0)
		return 0, nil
	default:
		return grace, nil // what is left is looked at when all is quiet
	}
}

// turnToAsk is how long questions about references must wait, that an account which is
// looked at for the first time may have.
func (c *Controller) turnToAsk(account *corev1.ServiceAccount, gone departures) time.Duration {
	key := toolscache.MetaObjectToName(account)
	asks := func(ref corev1.ObjectReference) bool {
		judged := c.judgeReference(account, ref.Name, nil)
		return judged == ask || judged == look
	}
	if len(gone) == 0 && slices.ContainsFunc(account.Secrets, asks) {
		return c.rests.looks.When(key)
	}
	c.rests.looks.Forget(key)
	return 0
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
			exists, err := c.exists(ctx, toolscache.ObjectName{Namespace: account.Namespace, Name: ref.Name})
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
	_, cached := cache.Get(c.cfg.Secrets, account.Namespace+"/"+name)
	return judge(reference{account: account.Name, name: name, cached: cached, seenGoing: gone.saw(name, account.UID)})
}

// recount is how often references that dangle are looked at again: what they name
// may be a Secret of another type, whose creation is not seen.
const recount = time.Hour

// countDangling counts the references that stay although nothing is there.
func (c *Controller) countDangling(ctx context.Context, account *corev1.ServiceAccount) (time.Duration, error) {
	key := toolscache.MetaObjectToName(account)
	var names []toolscache.ObjectName
	for _, ref := range account.Secrets {
		if c.judgeReference(account, ref.Name, nil) == look {
			names = append(names, toolscache.ObjectName{Namespace: account.Namespace, Name: ref.Name})
		}
	}
	if len(names) == 0 {
		c.dangling.set(key, 0)
		return 0, nil
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

func (c *Controller) exists(ctx context.Context, secret toolscache.ObjectName) (bool, error) {
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
	patch, err := kube.MergePatch(account, map[string]any{"secrets": without(account.Secrets, stale)})
	if err != nil {
		return 0, err
	}
	_, err = c.cfg.Client.ServiceAccounts(account.Namespace).Patch(ctx, account.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	switch {
	case err == nil:
		c.rests.references.Record(object, content)
		klog.FromContext(ctx).V(2).Info("Dropped references to secrets that are gone", "serviceAccount", klog.KObj(account), "count", len(stale))
		return 0, nil
	case apierrors.IsNotFound(err):
		return 0, nil // it went, and its references with it
	default:
		return 0, fmt.Errorf("patch service account %s: %w", klog.KObj(account), err)
	}
}
