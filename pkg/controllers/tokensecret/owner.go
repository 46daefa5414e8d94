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

// rememberedUIDs bounds how many UIDs are kept of deleted ServiceAccounts and of filled Secrets. A
// forgotten account costs a GET per Secret.
const rememberedUIDs = 10000

// owners is what this process remembers about ServiceAccounts.
type owners struct {
	// deleted holds UIDs of deleted accounts, with the resourceVersion of the deletion, empty if
	// the deletion itself was missed. They need no live GET, because a UID never comes back (but
	// by a restore of etcd under a running process).
	deleted *lru.Cache
	// filledFrom holds UIDs of Secrets into which this process wrote the UID of their account,
	// with the resourceVersion that they had before.
	filledFrom *lru.Cache
}

func newOwners() owners {
	return owners{deleted: lru.New(rememberedUIDs), filledFrom: lru.New(rememberedUIDs)}
}

// ownerOf finds the ServiceAccount of secret, in the cache or else by a live GET. If its absence is
// doubted, what this process saw of deletions does not count.
func (c *Controller) ownerOf(ctx context.Context, secret *cache.TokenSecret, doubted bool) (owner, error) {
	name := secret.AccountName()
	if !possibleAccount(name.Name) {
		return owner{}, nil
	}
	cached, ok := cache.Get(c.cfg.ServiceAccounts, name.String())
	if ok && belongs(secret, cached.UID) {
		return owner{account: cached.UID}, nil
	}
	maybeMistaken := c.owners.filledAfterDeletion(secret)
	if _, deleted := c.owners.deleted.Get(secret.AccountUID); deleted && !maybeMistaken && !c.cfg.ConfirmLive && !doubted {
		if ok {
			return owner{otherUID: cached.UID}, nil
		}
		return owner{}, nil
	}
	c.missing.search(secret)
	live, err := c.cfg.Client.ServiceAccounts(name.Namespace).Get(ctx, name.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return owner{missingFor: c.missing.notFound(secret, c.cfg.Clock.Now())}, nil
	case err != nil:
		return owner{}, fmt.Errorf("get service account %s: %w", name, err)
	case belongs(secret, live.UID):
		c.owners.deleted.Remove(live.UID) // a list lacked it by mistake
		return owner{account: live.UID, notCached: true}, nil
	default:
		return owner{
			otherUID: live.UID, missingFor: c.missing.notFound(secret, c.cfg.Clock.Now()),
			mistaken: maybeMistaken && !secret.CreationTimestamp.Before(&live.CreationTimestamp),
		}, nil
	}
}

// filledAfterDeletion returns true if secret named no UID and this process filled it for an account
// that was deleted already: the deletion is older than the version that was filled. This compares
// versions of two resources, which is right as long as both are in one etcd. A wrong result costs a
// GET, or does what in-tree does.
func (o owners) filledAfterDeletion(secret *cache.TokenSecret) bool {
	deleted, _ := o.deleted.Get(secret.AccountUID)
	filled, _ := o.filledFrom.Get(secret.UID)
	deletedAt, seen := deleted.(string)
	filledFrom, known := filled.(string)
	if !seen || !known || deletedAt == "" {
		return false
	}
	order, err := resourceversion.CompareResourceVersion(deletedAt, filledFrom)
	return err == nil && order < 0
}
