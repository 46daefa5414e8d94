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

// look asks the API server about every name that the account refers to and that the
// cache does not have.
func (c *Controller) look(ctx context.Context, s *state) error {
	key := toolscache.MetaObjectToName(s.account)
	live := map[string]bool{}
	for _, name := range s.missing {
		found, err := c.find(ctx, key.Namespace, name)
		if err != nil {
			return err
		}
		if found == nil {
			c.plans.forget(key, name) // its deletion was not seen, if it was made here
			continue
		}
		live[name] = found.DeletionTimestamp == nil && found.Annotations[corev1.ServiceAccountNameKey] == key.Name &&
			belongs(types.UID(found.Annotations[corev1.ServiceAccountUIDKey]), s.account.UID)
	}
	s.live, s.plan = live, c.plans.of(key)
	return nil
}

// probe finds out what became of a create that the API server did not answer, or
// refused because there is a Secret of that name.
func (c *Controller) probe(ctx context.Context, key toolscache.ObjectName, p plan) (time.Duration, error) {
	found, err := c.find(ctx, key.Namespace, p.name)
	now := c.cfg.Clock.Now()
	switch {
	case err != nil:
		return 0, err
	case found != nil && found.DeletionTimestamp == nil && found.Labels[token.InvalidSinceLabel] == "" &&
		found.Annotations[corev1.ServiceAccountNameKey] == key.Name && found.Annotations[corev1.ServiceAccountUIDKey] == string(p.account):
		c.plans.made(key, p.account, p.name, found.UID)
	case found == nil && now.Before(p.doubt):
		return min(p.doubt.Sub(now), soon), nil
	default:
		// It is somebody else's, or it went, or it never was. In none of these cases is
		// the name used again.
		klog.FromContext(ctx).V(4).Info("Gave up a name for a token secret", "secret", klog.KRef(key.Namespace, p.name), "taken", found != nil)
		c.plans.forget(key, p.name)
	}
	c.queue.Add(key) // with what is known now
	return 0, nil
}

// survey tells whether the cache shows every token Secret of account that exists. That
// can be in doubt for what a former process has made, so it is asked in each namespace
// until the cache shows all that there was at a moment after nothing of a former
// process was under way any more.
func (c *Controller) survey(ctx context.Context, account *corev1.ServiceAccount) (bool, error) {
	if _, done := c.surveyed.Get(account.Namespace); done {
		return true, nil
	}
	asked := c.cfg.Clock.Now()
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
	if all && !asked.Before(c.settled()) {
		c.surveyed.Add(account.Namespace, nil)
	}
	return own, nil
}

// find asks for the token Secret of that name; nil: there is none, whatever else may
// have that name.
func (c *Controller) find(ctx context.Context, namespace, name string) (*metav1.PartialObjectMetadata, error) {
	found, err := c.list(ctx, namespace, name)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	return &found[0], nil
}

// list asks for the token Secrets of a namespace, all or the one of that name, as they
// are at this moment. Metadata does not tell the type of a Secret; the selector does.
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
