package tokensecret

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	"k8s.io/utils/lru"

	"github.com/sakeeper/sakeeper/pkg/cabundle"
	"github.com/sakeeper/sakeeper/pkg/informers"
	"github.com/sakeeper/sakeeper/pkg/loop"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// Name is kube-controller-manager's name of this controller; the queue of
// references has a name of its own.
const (
	Name           = "serviceaccount-token-controller"
	referencesName = "serviceaccount-token-references"
)

// remembered bounds how many UIDs are kept of ServiceAccounts that went and of
// Secrets that were filled. A forgotten account costs a GET per Secret.
const remembered = 10000

// Signer makes legacy tokens.
type Signer interface {
	SignLegacy(ctx context.Context, claims token.LegacyClaims) (string, error)
}

// Client is what the controller reads and writes live.
type Client interface {
	typedcorev1.SecretsGetter
	typedcorev1.ServiceAccountsGetter
}

// Config is what the controller needs; all but Workers and Metrics is required.
type Config struct {
	Client Client
	// Metadata asks whether a Secret exists without fetching its data.
	Metadata        metadata.Interface
	Secrets         cache.TypedSharedIndexInformer[*informers.TokenSecret]
	ServiceAccounts cache.TypedSharedIndexInformer[*corev1.ServiceAccount]
	Signer          Signer
	// CA returns the bundle that Secrets should have at this moment.
	CA       func() cabundle.Bundle
	Recorder record.EventRecorder
	Clock    clock.PassiveClock
	// Workers is how many Secrets are handled at a time. Zero: one.
	Workers int
	Metrics *loop.Metrics
}

// Controller fills, repairs and deletes token Secrets and drops references to
// those that went.
type Controller struct {
	cfg        Config
	secrets    *loop.Loop[cache.ObjectName]
	references *loop.Loop[cache.ObjectName]
	synced     []cache.DoneChecker
	// goneAccounts holds UIDs whose deletion was seen, with the resourceVersion of
	// that. A UID never comes back (but by a restore of etcd under a running
	// process), so it needs no live check.
	goneAccounts *lru.Cache
	// namedHere holds UIDs of Secrets into which this process wrote their account's,
	// with the resourceVersion that they had before.
	namedHere   *lru.Cache
	goneSecrets *goneSecrets
}

// New checks cfg and registers with the informers, which the caller starts.
func New(cfg Config) (*Controller, error) {
	switch {
	case cfg.Client == nil, cfg.Metadata == nil, cfg.Secrets == nil, cfg.ServiceAccounts == nil:
		return nil, fmt.Errorf("%s: Client, Metadata, Secrets and ServiceAccounts are required", Name)
	case cfg.Signer == nil, cfg.CA == nil, cfg.Recorder == nil, cfg.Clock == nil:
		return nil, fmt.Errorf("%s: Signer, CA, Recorder and Clock are required", Name)
	}
	c := &Controller{
		cfg:          cfg,
		goneAccounts: lru.New(remembered),
		namedHere:    lru.New(remembered),
		goneSecrets:  newGoneSecrets(),
	}
	var errSecrets, errReferences error
	c.secrets, errSecrets = loop.New(loop.Config[cache.ObjectName]{
		Name: Name, Sync: c.syncSecret, Workers: cfg.Workers, Metrics: cfg.Metrics,
	})
	c.references, errReferences = loop.New(loop.Config[cache.ObjectName]{
		Name: referencesName, Sync: c.syncReferences, Workers: cfg.Workers, Metrics: cfg.Metrics,
	})
	if err := errors.Join(errSecrets, errReferences); err != nil {
		return nil, err
	}
	secrets, errSecrets := loop.Watch(cfg.Secrets, loop.Events[*informers.TokenSecret]{
		Changed: c.enqueueSecret, Deleted: c.secretDeleted,
	})
	accounts, errAccounts := loop.Watch(cfg.ServiceAccounts, loop.Events[*corev1.ServiceAccount]{
		Listed: c.enqueueReferences, Changed: c.enqueueReferencesLater, Deleted: c.accountDeleted,
	})
	c.synced = []cache.DoneChecker{secrets, accounts}
	return c, errors.Join(errSecrets, errAccounts)
}

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	done := make(chan error, 1)
	go func() { done <- c.references.Run(ctx, c.synced...) }()
	err := c.secrets.Run(ctx, c.synced...)
	return errors.Join(err, <-done)
}

// Ready tells whether every Secret and ServiceAccount that existed at the start
// was handled once.
func (c *Controller) Ready() bool { return c.secrets.Ready() && c.references.Ready() }

// EnqueueAll looks at every Secret again; call it when the CA changed. Writes are
// bounded by the number of workers.
func (c *Controller) EnqueueAll() {
	for _, key := range c.cfg.Secrets.GetStore().ListKeys() {
		if name, err := cache.ParseObjectName(key); err == nil { // the cache made the key
			c.secrets.Add(name)
		}
	}
}

func (c *Controller) syncSecret(ctx context.Context, key cache.ObjectName) (time.Duration, error) {
	ca := c.cfg.CA()
	s := state{caSum: ca.Sum()}
	if secret, ok := informers.Get(c.cfg.Secrets, key.String()); ok {
		owner, err := c.ownerOf(ctx, secret)
		if err != nil {
			return 0, err
		}
		s.secret, s.owner = secret, owner
	}
	act, reason := decide(s)
	switch act {
	case fill:
		return 0, c.fill(ctx, s.secret, s.owner.account, ca)
	case repair:
		return 0, c.repair(ctx, s.secret, s.owner.account, ca, reason)
	case release:
		return 0, c.release(ctx, s.secret, reason)
	case remove:
		return 0, c.remove(ctx, s.secret, reason)
	default:
		klog.FromContext(ctx).V(4).Info("Skipped token secret", "reason", reason)
		return 0, nil
	}
}

// ownerOf finds the ServiceAccount of secret: in the cache, or else live.
func (c *Controller) ownerOf(ctx context.Context, secret *informers.TokenSecret) (owner, error) {
	name := secret.AccountName()
	if name.Name == "" {
		return owner{}, nil
	}
	if cached, ok := informers.Get(c.cfg.ServiceAccounts, name.String()); ok && belongs(secret, cached.UID) {
		return owner{account: cached.UID}, nil
	}
	suspect := c.namedAfterDeletion(secret)
	if _, gone := c.goneAccounts.Get(secret.AccountUID); gone && !suspect {
		return owner{}, nil
	}
	live, err := c.cfg.Client.ServiceAccounts(name.Namespace).Get(ctx, name.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return owner{}, nil
	case err != nil:
		return owner{}, fmt.Errorf("get service account %s: %w", name, err)
	case belongs(secret, live.UID):
		return owner{account: live.UID}, nil
	default:
		return owner{mistaken: suspect && !secret.CreationTimestamp.Before(&live.CreationTimestamp)}, nil
	}
}

// namedAfterDeletion tells whether this process may have taken secret, which named
// no UID, for one of an account that was gone already: the deletion is older than
// what was filled. Versions of two resources are compared, which holds as long as
// both are in one etcd; a wrong answer costs a GET, or means what in-tree does.
func (c *Controller) namedAfterDeletion(secret *informers.TokenSecret) bool {
	gone, _ := c.goneAccounts.Get(secret.AccountUID)
	named, _ := c.namedHere.Get(secret.UID)
	deletedAt, seen := gone.(string)
	filledFrom, filled := named.(string)
	if !seen || !filled {
		return false
	}
	order, err := resourceversion.CompareResourceVersion(deletedAt, filledFrom)
	return err == nil && order < 0
}

func (c *Controller) enqueueSecret(secret *informers.TokenSecret) {
	c.secrets.Add(cache.MetaObjectToName(secret))
}

func (c *Controller) secretDeleted(secret *informers.TokenSecret) {
	c.goneSecrets.add(secret, c.cfg.Clock.Now())
	c.references.AddAfter(secret.AccountName(), quiet)
}

// accountDeleted queues the Secrets of the account. Those that belong to another
// account of the same name find it when they are synced.
func (c *Controller) accountDeleted(account *corev1.ServiceAccount) {
	c.goneAccounts.Add(account.UID, account.ResourceVersion)
	secrets, err := c.cfg.Secrets.GetTypedIndexer().ByTypedIndex(informers.ByAccount, cache.MetaObjectToName(account).String())
	if err != nil {
		panic("tokensecret: internal error: " + err.Error()) // there is no such index
	}
	for _, secret := range secrets {
		c.enqueueSecret(secret)
	}
}

func (c *Controller) enqueueReferences(account *corev1.ServiceAccount) {
	if len(account.Secrets) > 0 {
		c.references.Add(cache.MetaObjectToName(account))
	}
}

// enqueueReferencesLater gives whoever wrote the account the time to write its
// Secrets too.
func (c *Controller) enqueueReferencesLater(account *corev1.ServiceAccount) {
	if len(account.Secrets) > 0 {
		c.references.AddAfter(cache.MetaObjectToName(account), grace)
	}
}
