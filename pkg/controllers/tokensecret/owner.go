package tokensecret

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/utils/lru"

	"github.com/sakeeper/sakeeper/pkg/cache"
)

// owners is what this process remembers of ServiceAccounts.
type owners struct {
	// gone holds UIDs of which it is known that they went, with the resourceVersion of
	// the deletion, empty where that was missed. A UID
	// never comes back (but by a restore of etcd under a running process), so it needs
	// no live check.
	gone *lru.Cache
	// namedHere holds UIDs of Secrets into which this process wrote their account's,
	// with the resourceVersion that they had before.
	namedHere *lru.Cache
}

// ownerOf finds the ServiceAccount of secret: in the cache, or else live.
func (c *Controller) ownerOf(ctx context.Context, secret *cache.TokenSecret) (owner, error) {
	name := secret.AccountName()
	if name.Name == "" {
		return owner{}, nil
	}
	if cached, ok := cache.Get(c.cfg.ServiceAccounts, name.String()); ok && belongs(secret, cached.UID) {
		return owner{account: cached.UID}, nil
	}
	suspect := c.owners.namedAfterDeletion(secret)
	if _, gone := c.owners.gone.Get(secret.AccountUID); gone && !suspect {
		return owner{}, nil
	}
	live, err := c.cfg.Client.ServiceAccounts(name.Namespace).Get(ctx, name.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return owner{}, nil
	case err != nil:
		return owner{}, fmt.Errorf("get service account %s: %w", name, err)
	case belongs(secret, live.UID):
		return owner{account: live.UID, unseen: true}, nil
	default:
		return owner{mistaken: suspect && !secret.CreationTimestamp.Before(&live.CreationTimestamp)}, nil
	}
}

// namedAfterDeletion tells whether this process may have taken secret, which named
// no UID, for one of an account that was gone already: the deletion is older than
// what was filled. Versions of two resources are compared, which holds as long as
// both are in one etcd; a wrong answer costs a GET, or means what in-tree does.
func (o owners) namedAfterDeletion(secret *cache.TokenSecret) bool {
	gone, _ := o.gone.Get(secret.AccountUID)
	named, _ := o.namedHere.Get(secret.UID)
	deletedAt, seen := gone.(string)
	filledFrom, filled := named.(string)
	if !seen || !filled || deletedAt == "" {
		return false
	}
	order, err := resourceversion.CompareResourceVersion(deletedAt, filledFrom)
	return err == nil && order < 0
}
