package tokenreferences

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

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/internal/writebackoff"
	"github.com/sakeeper/sakeeper/pkg/kube"
)

// decideReference decides on one reference of account by the cache and by deleted.
func (c *Controller) decideReference(account *corev1.ServiceAccount, name string, deleted deletedSecrets) decision {
	_, cached := cache.Get(c.cfg.Secrets, account.Namespace+"/"+name)
	return decide(reference{account: account.Name, name: name, cached: cached, deleted: deleted.includes(name, account.UID)})
}

// reportUnusable records one event on an account as long as it has references that no Secret can be
// meant by.
func (c *Controller) reportUnusable(account *corev1.ServiceAccount) {
	has := slices.ContainsFunc(account.Secrets, func(ref corev1.ObjectReference) bool { return unusable(ref.Name) })
	if c.unusable.changed(toolscache.MetaObjectToName(account), account.UID, has) {
		c.cfg.Recorder.Event(kube.Reference("ServiceAccount", account), corev1.EventTypeWarning, api.ReasonUnusableSecretReference,
			"The field secrets of this service account has an entry without a name, or with one that no secret can have. Remove it")
	}
}

// waitForLookups returns how long the lookups of an account's references must wait, if it needs any.
func (c *Controller) waitForLookups(account *corev1.ServiceAccount, deleted deletedSecrets) time.Duration {
	key := toolscache.MetaObjectToName(account)
	needsLookup := func(ref corev1.ObjectReference) bool {
		decided := c.decideReference(account, ref.Name, nil)
		return decided == lookUp || decided == count
	}
	if len(deleted) == 0 && slices.ContainsFunc(account.Secrets, needsLookup) {
		return c.lookups.When(key)
	}
	c.lookups.Forget(key)
	return 0
}

// stale returns the names in account.secrets that must be removed. References that need a lookup
// wait until there are no deletions to handle.
func (c *Controller) stale(ctx context.Context, account *corev1.ServiceAccount, deleted deletedSecrets) (map[string]bool, error) {
	stale := map[string]bool{}
	for _, ref := range account.Secrets {
		switch c.decideReference(account, ref.Name, deleted) {
		case remove:
			stale[ref.Name] = true
		case lookUp:
			if len(deleted) > 0 {
				continue
			}
			exists, err := c.secretExists(ctx, account.Namespace, ref.Name)
			if err != nil {
				return nil, err
			}
			if !exists {
				stale[ref.Name] = true
			}
		case keep, count:
		}
	}
	return stale, nil
}

// countDangling counts the references that stay although there is no such Secret.
func (c *Controller) countDangling(ctx context.Context, account *corev1.ServiceAccount) (requeueAfter time.Duration, err error) {
	missing := 0
	for _, ref := range account.Secrets {
		if c.decideReference(account, ref.Name, nil) != count {
			continue
		}
		exists, err := c.secretExists(ctx, account.Namespace, ref.Name)
		if err != nil {
			return 0, err
		}
		if !exists {
			missing++
		}
	}
	c.dangling.set(toolscache.MetaObjectToName(account), missing)
	if missing == 0 {
		return 0, nil
	}
	return recount, nil
}

func (c *Controller) secretExists(ctx context.Context, namespace, name string) (bool, error) {
	resource := corev1.SchemeGroupVersion.WithResource("secrets")
	_, err := c.cfg.Metadata.Resource(resource).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
	switch {
	case err == nil:
		return true, nil
	case apierrors.IsNotFound(err):
		return false, nil
	default:
		return false, fmt.Errorf("get secret %s/%s: %w", namespace, name, err)
	}
}

// writeBackoff returns how long the removal of these references must wait, because it was undone
// too often.
func (c *Controller) writeBackoff(ctx context.Context, account *corev1.ServiceAccount, stale map[string]bool) time.Duration {
	allowed := c.writes.Allow(keyOf(account), contentOf(stale))
	writebackoff.Report(ctx, c.cfg.Recorder, kube.Reference("ServiceAccount", account), allowed)
	return allowed.Wait
}

func (c *Controller) removeReferences(ctx context.Context, account *corev1.ServiceAccount, stale map[string]bool) error {
	if c.cfg.ConfirmLive {
		live, err := c.cfg.Client.ServiceAccounts(account.Namespace).Get(ctx, account.Name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			return nil // the account is gone, and its references with it
		case err != nil:
			return fmt.Errorf("get service account %s: %w", klog.KObj(account), err)
		case live.UID != account.UID:
			return nil // another account, of which an event will come
		}
		account = live
	}
	patch, err := kube.MergePatch(account, map[string]any{"secrets": without(account.Secrets, stale)})
	if err != nil {
		return err
	}
	_, err = c.cfg.Client.ServiceAccounts(account.Namespace).Patch(ctx, account.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	switch {
	case err == nil:
		c.writes.Record(keyOf(account), contentOf(stale))
		klog.FromContext(ctx).V(2).Info("Removed references to secrets that are gone", "serviceAccount", klog.KObj(account), "count", len(stale))
		return nil
	case apierrors.IsNotFound(err):
		return nil // the account is gone, and its references with it
	default:
		return fmt.Errorf("patch service account %s: %w", klog.KObj(account), err)
	}
}

func keyOf(account *corev1.ServiceAccount) objectKey {
	return objectKey{namespace: account.Namespace, name: account.Name, uid: string(account.UID)}
}

func contentOf(stale map[string]bool) string {
	return strings.Join(slices.Sorted(maps.Keys(stale)), " ")
}
