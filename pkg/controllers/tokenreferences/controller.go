package tokenreferences

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/metadata"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"
	"k8s.io/utils/lru"

	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/internal/workqueue"
	"github.com/sakeeper/sakeeper/pkg/internal/writebackoff"
)

// Name is the name of the queue in logs and metrics. Users switch this controller on and off under
// the name serviceaccount-token-controller.
const Name = "serviceaccount-token-references"

const (
	// grace is how long a Secret may be missing after its account was written, because tools
	// that apply or restore both write the account first.
	grace = 5 * time.Second
	// recount is how often dangling references are counted again: a Secret of another type, whose
	// creation is not watched, may have been created.
	recount = time.Hour
	// requeueAfterConflict is when an account is synced again after a conflict.
	requeueAfterConflict = time.Second
	// lookupsPerSecond and lookupsAtOnce limit how many accounts have their references looked up
	// at the API server.
	lookupsPerSecond = 200
	lookupsAtOnce    = 1000
	// rememberedAccounts bounds how many UIDs of deleted ServiceAccounts are kept. A forgotten one
	// may cost a GET.
	rememberedAccounts = 10000
)

// Config is what the controller needs. All but Workers and Registerer is required.
type Config struct {
	// Client reads and patches ServiceAccounts.
	Client typedcorev1.ServiceAccountsGetter
	// Metadata reads whether a Secret exists, without its data.
	Metadata metadata.Interface
	// Secrets are the token Secrets of the cluster. The caller starts the informer.
	Secrets toolscache.TypedSharedIndexInformer[*cache.TokenSecret]
	// ServiceAccounts are those of the cluster. The caller starts the informer.
	ServiceAccounts toolscache.TypedSharedIndexInformer[*corev1.ServiceAccount]
	// ConfirmLive is for informers of ServiceAccounts that may be filtered or trimmed by their
	// owner: the references of an account are read live before
	// they are written.
	ConfirmLive bool
	// Recorder gets a warning when the controller begins to delay writes to an account, because
	// another client keeps undoing them.
	Recorder record.EventRecorder
	Clock    clock.PassiveClock
	// Workers is how many ServiceAccounts are handled at a time. Zero: one.
	Workers int
	// Registerer gets the metrics. Nil: they are not exported.
	Registerer prometheus.Registerer
}

// Controller removes references to Secrets that are gone.
type Controller struct {
	cfg       Config
	queue     *workqueue.Queue[toolscache.ObjectName]
	synced    []toolscache.DoneChecker
	deletions *deletions
	// deletedAccounts holds the UIDs of deleted ServiceAccounts.
	deletedAccounts *lru.Cache
	dangling        *dangling
	unusable        *unusableReferences
	lookups         *workqueue.KeyedLimiter[toolscache.ObjectName]
	writes          *writebackoff.Tracker[objectKey]
}

// objectKey identifies a ServiceAccount for the write backoff.
type objectKey struct{ namespace, name, uid string }

// New checks cfg and registers with the informers.
func New(cfg Config) (*Controller, error) {
	switch {
	case cfg.Client == nil, cfg.Metadata == nil, cfg.Secrets == nil, cfg.ServiceAccounts == nil, cfg.Recorder == nil, cfg.Clock == nil:
		return nil, fmt.Errorf("%s: Client, Metadata, Secrets, ServiceAccounts, Recorder and Clock are required", Name)
	}
	c := &Controller{
		cfg:             cfg,
		deletions:       newDeletions(),
		deletedAccounts: lru.New(rememberedAccounts),
		dangling:        newDangling(),
		unusable:        newUnusableReferences(),
		lookups:         workqueue.NewKeyedLimiter[toolscache.ObjectName](cfg.Clock, lookupsPerSecond, lookupsAtOnce),
		writes:          writebackoff.New[objectKey]("references", cfg.Clock, cfg.Registerer),
	}
	var err error
	if c.queue, err = workqueue.New(workqueue.Config[toolscache.ObjectName]{
		Name: Name, Sync: c.sync, Workers: cfg.Workers, Registerer: cfg.Registerer,
	}); err != nil {
		return nil, err
	}
	secrets, errSecrets := workqueue.Watch(cfg.Secrets, workqueue.Events[*cache.TokenSecret]{Deleted: c.secretDeleted})
	accounts, errAccounts := workqueue.Watch(cfg.ServiceAccounts, workqueue.Events[*corev1.ServiceAccount]{
		Listed: c.enqueue, Changed: c.enqueueAfterGrace, Deleted: c.accountDeleted,
	})
	c.synced = []toolscache.DoneChecker{secrets, accounts}
	return c, errors.Join(errSecrets, errAccounts, c.dangling.register(cfg.Registerer))
}

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.queue.Run(ctx, c.synced...) }

// Ready returns true if every ServiceAccount that existed at the start was handled once.
func (c *Controller) Ready() bool { return c.queue.Ready() }

func (c *Controller) sync(ctx context.Context, key toolscache.ObjectName) (requeueAfter time.Duration, err error) {
	deleted, wait := c.deletions.get(key, c.cfg.Clock.Now())
	if wait > 0 {
		return wait, nil
	}
	account, ok := cache.Get(c.cfg.ServiceAccounts, key.String())
	if !ok {
		c.dangling.set(key, 0)
		c.unusable.changed(key, "", false)
		c.lookups.Forget(key)
		return c.deletions.expire(key, c.cfg.Clock.Now()), nil
	}
	if c.deletions.liveReadRequired(key) || c.mayLag(account, deleted) {
		live, err := c.cfg.Client.ServiceAccounts(key.Namespace).Get(ctx, key.Name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			c.deletions.done(key, deleted)
			return 0, nil
		case err != nil:
			return 0, fmt.Errorf("get service account %s: %w", key, err)
		}
		account = live
	}
	return c.reconcile(ctx, account, deleted)
}

// mayLag returns true if the cached account has no reference to a Secret of it that was deleted: it
// may be a version from before the reference was added.
func (c *Controller) mayLag(account *corev1.ServiceAccount, deleted deletedSecrets) bool {
	for name, secret := range deleted {
		_, createdAgain := cache.Get(c.cfg.Secrets, account.Namespace+"/"+name)
		_, accountDeleted := c.deletedAccounts.Get(secret.account)
		refers := slices.ContainsFunc(account.Secrets, func(ref corev1.ObjectReference) bool { return ref.Name == name })
		if !createdAgain && !accountDeleted && !refers {
			return true
		}
	}
	return false
}

func (c *Controller) reconcile(ctx context.Context, account *corev1.ServiceAccount, deleted deletedSecrets) (requeueAfter time.Duration, err error) {
	key := toolscache.MetaObjectToName(account)
	c.reportUnusable(account)
	if wait := c.waitForLookups(account, deleted); wait > 0 {
		return wait, workqueue.ErrRequeueLater
	}
	stale, err := c.stale(ctx, account, deleted)
	if err != nil {
		return 0, err
	}
	if len(stale) > 0 {
		if wait := c.writeBackoff(ctx, account, stale); wait > 0 {
			return wait, nil
		}
		if err := c.removeReferences(ctx, account, stale); err != nil {
			c.deletions.requireLiveRead(key)
			if apierrors.IsConflict(err) {
				return requeueAfterConflict, nil
			}
			return 0, err
		}
	}
	c.deletions.done(key, deleted)
	switch {
	case len(deleted) == 0 && len(stale) == 0:
		return c.countDangling(ctx, account)
	case len(without(account.Secrets, stale)) == 0:
		c.dangling.set(key, 0)
		return 0, nil
	default:
		return grace, nil // the references that are left are looked up when no more Secrets are deleted
	}
}

func (c *Controller) secretDeleted(secret *cache.TokenSecret) {
	c.deletions.add(secret, c.cfg.Clock.Now())
	c.queue.AddAfter(secret.AccountName(), batchWindow)
}

func (c *Controller) accountDeleted(account *corev1.ServiceAccount) {
	c.deletedAccounts.Add(account.UID, nil)
	c.queue.Add(toolscache.MetaObjectToName(account)) // to forget what is remembered about it
}

func (c *Controller) enqueue(account *corev1.ServiceAccount) {
	if len(account.Secrets) > 0 {
		c.queue.Add(toolscache.MetaObjectToName(account))
	}
}

// enqueueAfterGrace leaves time to the client that wrote the account to write its Secrets too.
func (c *Controller) enqueueAfterGrace(account *corev1.ServiceAccount) {
	key := toolscache.MetaObjectToName(account)
	if len(account.Secrets) > 0 || c.dangling.get(key) > 0 {
		c.queue.AddAfter(key, grace)
	}
}
