package tokengeneration

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// checkReferences reads every Secret that the account refers to and that the cache does
// not have from the API server.
func (c *Controller) checkReferences(ctx context.Context, s *state) error {
	key := toolscache.MetaObjectToName(s.account)
	live := map[string]bool{}
	for _, name := range s.missing {
		found, err := c.find(ctx, key.Namespace, name)
		if err != nil {
			return err
		}
		if found == nil {
			c.plans.forgetSecret(key, name) // created by this process, and its delete event was missed
			continue
		}
		live[name] = found.DeletionTimestamp == nil && found.Annotations[corev1.ServiceAccountNameKey] == key.Name &&
			matchesUID(types.UID(found.Annotations[corev1.ServiceAccountUIDKey]), s.account.UID)
	}
	s.live, s.plan = live, c.plans.get(key)
	return nil
}

// checkCreate finds out whether a create was carried out that the API server did not
// answer, or rejected because a Secret of that name exists.
func (c *Controller) checkCreate(ctx context.Context, key toolscache.ObjectName, p plan) (time.Duration, error) {
	found, err := c.find(ctx, key.Namespace, p.secretName)
	now := c.cfg.Clock.Now()
	switch {
	case err != nil:
		return 0, err
	case found != nil && found.DeletionTimestamp == nil && found.Labels[token.InvalidSinceLabel] == "" &&
		found.Annotations[corev1.ServiceAccountNameKey] == key.Name && found.Annotations[corev1.ServiceAccountUIDKey] == string(p.accountUID):
		c.plans.recordCreated(key, p.accountUID, p.secretName, found.UID)
	case found == nil && now.Before(p.createDeadline):
		return min(p.createDeadline.Sub(now), requeueAfter), nil
	default:
		// The Secret belongs to another account, was deleted, or was never created. In
		// none of these cases is the name used again.
		klog.FromContext(ctx).V(4).Info("Gave up a name for a token secret", "secret", klog.KRef(key.Namespace, p.secretName), "taken", found != nil)
		c.plans.forgetSecret(key, p.secretName)
	}
	c.queue.Add(key) // decide again with what is known now
	return 0, nil
}

// cacheShowsAll returns true if the cache has every token Secret of account that
// exists. It may lack those that a previous process created, so each namespace is
// listed, until the cache shows a complete list that was made when no request of a
// previous process could be carried out any more.
func (c *Controller) cacheShowsAll(ctx context.Context, account *corev1.ServiceAccount) (bool, error) {
	if _, done := c.verified.Get(account.Namespace); done {
		return true, nil
	}
	listed := c.cfg.Clock.Now()
	existing, err := c.list(ctx, account.Namespace, "")
	if err != nil {
		return false, err
	}
	own, all := true, true
	for _, secret := range existing {
		if cached, ok := cache.Get(c.cfg.Secrets, secret.Namespace+"/"+secret.Name); ok && cached.UID == secret.UID {
			continue
		}
		all = false
		own = own && secret.Annotations[corev1.ServiceAccountNameKey] != account.Name
	}
	if all && !listed.Before(c.previousRequestsEnd()) {
		c.verified.Add(account.Namespace, nil)
	}
	return own, nil
}

// find returns the metadata of the token Secret of that name. It returns nil if there is
// none, also if a Secret of another type has the name.
func (c *Controller) find(ctx context.Context, namespace, name string) (*metav1.PartialObjectMetadata, error) {
	found, err := c.list(ctx, namespace, name)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	return &found[0], nil
}

// list reads the token Secrets of a namespace from the API server: all, or the one of
// that name. Metadata does not have the type of a Secret, so a selector is used.
func (c *Controller) list(ctx context.Context, namespace, name string) ([]metav1.PartialObjectMetadata, error) {
	selector := fields.OneTermEqualSelector("type", string(corev1.SecretTypeServiceAccountToken))
	if name != "" {
		selector = fields.AndSelectors(selector, fields.OneTermEqualSelector("metadata.name", name))
	}
	resource := corev1.SchemeGroupVersion.WithResource("secrets")
	list, err := c.cfg.Metadata.Resource(resource).Namespace(namespace).List(ctx, metav1.ListOptions{FieldSelector: selector.String()})
	if err != nil {
		return nil, fmt.Errorf("list secrets %s/%s: %w", namespace, name, err)
	}
	return list.Items, nil
}
