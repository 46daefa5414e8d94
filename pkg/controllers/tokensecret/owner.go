package tokensecret

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
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
	maybeMistaken := c.owners.mayBeFilledAfterDeletion(secret)
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
			mistaken: maybeMistaken && c.owners.filledAfterDeletion(secret, live),
		}, nil
	}
}

// filled returns the version of the deletion of the account that secret names, empty if the deletion
// itself was missed, and the version of secret that this process filled. It returns false unless it
// knows both.
func (o owners) filled(secret *cache.TokenSecret) (deletedAt, from string, ok bool) {
	deleted, _ := o.deleted.Get(secret.AccountUID)
	version, _ := o.filledFrom.Get(secret.UID)
	deletedAt, seen := deleted.(string)
	from, known := version.(string)
	return deletedAt, from, seen && known
}

// mayBeFilledAfterDeletion returns false if filledAfterDeletion will.
func (o owners) mayBeFilledAfterDeletion(secret *cache.TokenSecret) bool {
	deletedAt, from, ok := o.filled(secret)
	return ok && (deletedAt == "" || olderVersion(deletedAt, from))
}

// filledAfterDeletion returns true if secret named no UID and this process filled it for an account
// that was deleted already: the deletion is older than the version that was filled. A deletion that
// was missed is older than successor, the account of that name.
func (o owners) filledAfterDeletion(secret *cache.TokenSecret, successor *corev1.ServiceAccount) bool {
	deletedAt, from, ok := o.filled(secret)
	if deletedAt == "" {
		deletedAt = successor.ResourceVersion
	}
	return ok && olderVersion(deletedAt, from) && !secret.CreationTimestamp.Before(&successor.CreationTimestamp)
}

// olderVersion compares versions of two resources, which is right as long as both are in one etcd. A
// wrong result costs a GET, or does what in-tree does.
func olderVersion(a, b string) bool {
	order, err := resourceversion.CompareResourceVersion(a, b)
	return err == nil && order < 0
}
