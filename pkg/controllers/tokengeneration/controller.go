package tokengeneration

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/metadata"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	"k8s.io/utils/lru"

	"github.com/sakeeper/sakeeper/pkg/cabundle"
	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/internal/workqueue"
	"github.com/sakeeper/sakeeper/pkg/internal/writebackoff"
	"github.com/sakeeper/sakeeper/pkg/kube"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// Name is the name of the controller, its queue and its user agent.
const Name = "token-generation-controller"

const (
	// perSecond and burst limit the rate when generation is enabled in a large cluster:
	// 500 Secrets at once, and 10,000 in 95 s. Each takes two writes, or three requests
	// if it is the first of its namespace.
	perSecond = 100
	burst     = 500
	// defaultRequestTimeout is the default timeout of admission webhooks.
	defaultRequestTimeout = 10 * time.Second
	// deletedSecretDelay is the time for other controllers to remove the reference to a
	// deleted Secret before its account is handled.
	deletedSecretDelay = time.Second
	// missingSecretDelay is how long a Secret may be missing after its account was
	// written: tools that apply or restore both write the account first.
	missingSecretDelay = 5 * time.Second
	// maxVerifiedNamespaces bounds verified. A dropped namespace costs one list.
	maxVerifiedNamespaces = 10000
)

// Tokens makes legacy tokens that may be written; see [signingkey.Check.Sign].
type Tokens interface {
	Sign(ctx context.Context, claims token.LegacyClaims) (compact string, requeueAfter time.Duration, err error)
}

// Client is what the controller writes with.
type Client interface {
	typedcorev1.SecretsGetter
	typedcorev1.ServiceAccountsGetter
}

// Config is the input of [New]. All fields but Registerer are required.
type Config struct {
	// Mode is [ModeLabelled] or [ModeAll].
	Mode   Mode
	Client Client
	// Metadata lists token Secrets without fetching their data.
	Metadata metadata.Interface
	// Namespaces, Secrets and ServiceAccounts are run by the caller, and Secrets and
	// ServiceAccounts have the indices of pkg/cache.
	Namespaces      toolscache.TypedSharedIndexInformer[*corev1.Namespace]
	Secrets         toolscache.TypedSharedIndexInformer[*cache.TokenSecret]
	ServiceAccounts toolscache.TypedSharedIndexInformer[*corev1.ServiceAccount]
	// ConfirmLive is for informers of ServiceAccounts that may be filtered or trimmed by their
	// owner: the references of an account are read live before
	// they are written.
	ConfirmLive bool
	Tokens      Tokens
	// CA returns the current CA bundle, for ca.crt in Secrets. It is called for each Secret,
	// concurrently.
	CA func() cabundle.Bundle
	// Recorder records events about ServiceAccounts.
	Recorder record.EventRecorder
	// Clock measures delays, and is compared with the creationTimestamp of ServiceAccounts.
	Clock clock.PassiveClock
	// Workers is how many ServiceAccounts are handled at a time. Zero: one.
	Workers int
	// Registerer exports the metrics. Nil: they are not exported.
	Registerer prometheus.Registerer
}

// Controller creates token Secrets for ServiceAccounts. Make one with [New].
type Controller struct {
	cfg     Config
	queue   *workqueue.Queue[toolscache.ObjectName]
	synced  []toolscache.DoneChecker
	started time.Time // set before the first sync
	// requestTimeout is how long a request without an answer may still be carried out.
	requestTimeout time.Duration
	plans          *plans
	// verified are namespaces whose cache was found to show every token Secret that
	// existed after the start.
	verified *lru.Cache
	limiter  *workqueue.KeyedLimiter[toolscache.ObjectName]
	backoff  *writebackoff.Tracker[objectKey]
}

// objectKey identifies the account whose token Secret other clients may keep deleting.
type objectKey struct{ namespace, name, uid string }

// New checks cfg and adds event handlers to the informers. It sends no request.
func New(cfg Config) (*Controller, error) {
	switch {
	case cfg.Mode != ModeLabelled && cfg.Mode != ModeAll:
		return nil, fmt.Errorf("%s: Mode %q is neither %s nor %s", Name, cfg.Mode, ModeLabelled, ModeAll)
	case cfg.Client == nil, cfg.Metadata == nil, cfg.Namespaces == nil, cfg.Secrets == nil, cfg.ServiceAccounts == nil:
		return nil, fmt.Errorf("%s: Client, Metadata, Namespaces, Secrets and ServiceAccounts are required", Name)
	case cfg.Tokens == nil, cfg.CA == nil, cfg.Recorder == nil, cfg.Clock == nil:
		return nil, fmt.Errorf("%s: Tokens, CA, Recorder and Clock are required", Name)
	}
	c := &Controller{
		cfg:            cfg,
		requestTimeout: defaultRequestTimeout,
		plans:          newPlans(),
		verified:       lru.New(maxVerifiedNamespaces),
		limiter:        workqueue.NewKeyedLimiter[toolscache.ObjectName](cfg.Clock, perSecond, burst),
		backoff:        writebackoff.New[objectKey]("generated tokens", cfg.Clock, cfg.Registerer),
	}
	var err error
	if c.queue, err = workqueue.New(workqueue.Config[toolscache.ObjectName]{
		Name: Name, Sync: c.sync, Workers: cfg.Workers, Registerer: cfg.Registerer,
	}); err != nil {
		return nil, err
	}
	accounts, errAccounts := workqueue.Watch(cfg.ServiceAccounts, c.accountEvents())
	secrets, errSecrets := workqueue.Watch(cfg.Secrets, c.secretEvents())
	namespaces, errNamespaces := workqueue.Watch(cfg.Namespaces, c.namespaceEvents())
	c.synced = []toolscache.DoneChecker{accounts, secrets, namespaces}
	return c, errors.Join(errAccounts, errSecrets, errNamespaces)
}

// Run handles ServiceAccounts until ctx ends, and returns after the last worker. Call it
// once, and run the informers beside it.
func (c *Controller) Run(ctx context.Context) error {
	c.started = c.cfg.Clock.Now()
	return c.queue.Run(ctx, c.synced...)
}

// Ready returns true if every ServiceAccount that existed at the start was handled
// once. Its Secret may still be delayed by the rate limit.
func (c *Controller) Ready() bool { return c.queue.Ready() }

// EnqueueAll syncs every ServiceAccount again. Call it when tokens may be written again.
func (c *Controller) EnqueueAll() {
	workqueue.EnqueueAll(c.cfg.ServiceAccounts, func(account *corev1.ServiceAccount, delay time.Duration) {
		c.queue.AddAfter(toolscache.MetaObjectToName(account), delay)
	})
}

func (c *Controller) enqueue(account *corev1.ServiceAccount) {
	c.queue.Add(toolscache.MetaObjectToName(account))
}

func (c *Controller) sync(ctx context.Context, key toolscache.ObjectName) (time.Duration, error) {
	s := c.gather(key)
	d := decide(s)
	if s.startsWork(d) {
		if wait := c.writeDelay(ctx, s.account); wait > 0 {
			return wait, workqueue.ErrRequeueLater
		}
	}
	if d.action == checkReferences {
		if err := c.checkReferences(ctx, &s); err != nil {
			return 0, err
		}
		d = decide(s)
	}
	switch d.action {
	case awaitRequests:
		return s.previousRequestsEnd.Sub(s.now), nil
	case checkCreate:
		return c.checkCreate(ctx, key, s.plan)
	case addReference:
		return c.addReference(ctx, s.account, d)
	case generate:
		return c.generate(ctx, s.account)
	case deleteSecret:
		return 0, c.deleteSecret(ctx, key, d)
	case none:
		c.finish(key, s)
	case awaitCache, checkReferences:
	}
	klog.FromContext(ctx).V(4).Info("Skipped service account", "reason", d.reason)
	return 0, nil
}

// gather reads the caches and the account's plan.
func (c *Controller) gather(key toolscache.ObjectName) state {
	s := state{mode: c.cfg.Mode, now: c.cfg.Clock.Now(), started: c.started, previousRequestsEnd: c.previousRequestsEnd(), plan: c.plans.get(key)}
	if namespace, ok := cache.Get(c.cfg.Namespaces, key.Namespace); ok {
		s.namespace = namespace
	}
	account, ok := cache.Get(c.cfg.ServiceAccounts, key.String())
	if !ok {
		return s
	}
	s.account = account
	if s.plan.accountUID != account.UID && !s.plan.createUnknown() && !s.plan.deletable() {
		c.plans.delete(key) // of a deleted account of that name, with nothing left to clean up
		s.plan = plan{}
	}
	var err error
	if s.secrets, err = c.cfg.Secrets.GetTypedIndexer().ByTypedIndex(cache.ByAccount, key.String()); err != nil {
		panic("tokengeneration: internal error: " + err.Error()) // there is no such index
	}
	s.missing = c.missing(account)
	return s
}

// missing returns the names in account.secrets of which the cache has no token Secret.
func (c *Controller) missing(account *corev1.ServiceAccount) []string {
	var names []string
	for _, ref := range account.Secrets {
		if _, ok := cache.Get(c.cfg.Secrets, account.Namespace+"/"+ref.Name); !ok {
			names = append(names, ref.Name)
		}
	}
	return names
}

// previousRequestsEnd is when no request of a previous process can be carried out any more.
func (c *Controller) previousRequestsEnd() time.Time { return c.started.Add(c.requestTimeout) }

// finish deletes the plan of an account that needs nothing, once the caches show the
// Secret that was created.
func (c *Controller) finish(key toolscache.ObjectName, s state) {
	c.limiter.Forget(key)
	cached, ok := cache.Get(c.cfg.Secrets, key.Namespace+"/"+s.plan.secretName)
	if s.account == nil || s.plan.secretUID == "" || ok && cached.UID == s.plan.secretUID {
		c.plans.delete(key)
	}
}

// writeDelay returns how long rate limit and write backoff delay new work for account.
func (c *Controller) writeDelay(ctx context.Context, account *corev1.ServiceAccount) time.Duration {
	if wait := c.limiter.When(toolscache.MetaObjectToName(account)); wait > 0 {
		return wait
	}
	allowed := c.backoff.Allow(objectKeyOf(account), content)
	writebackoff.Report(ctx, c.cfg.Recorder, kube.Reference(kind, account), allowed)
	return allowed.Wait
}

const (
	// kind is the kind of the objects that events are about.
	kind = "ServiceAccount"
	// content is the only content for the write backoff: a token Secret and its reference.
	content = "token"
)

func objectKeyOf(account *corev1.ServiceAccount) objectKey {
	return objectKey{namespace: account.Namespace, name: account.Name, uid: string(account.UID)}
}

func (c *Controller) accountEvents() workqueue.Events[*corev1.ServiceAccount] {
	return workqueue.Events[*corev1.ServiceAccount]{
		Listed: c.enqueue,
		Changed: func(account *corev1.ServiceAccount) {
			if len(c.missing(account)) > 0 {
				c.queue.AddAfter(toolscache.MetaObjectToName(account), missingSecretDelay)
				return
			}
			c.enqueue(account)
		},
		Deleted: c.enqueue,
	}
}

func (c *Controller) secretEvents() workqueue.Events[*cache.TokenSecret] {
	return workqueue.Events[*cache.TokenSecret]{
		Listed:  func(*cache.TokenSecret) {}, // the initial list of accounts queues them all
		Changed: func(secret *cache.TokenSecret) { c.queue.Add(secret.AccountName()) },
		Deleted: func(secret *cache.TokenSecret) {
			c.plans.forgetSecret(secret.AccountName(), secret.Name)
			c.queue.AddAfter(secret.AccountName(), deletedSecretDelay)
		},
	}
}

func (c *Controller) namespaceEvents() workqueue.Events[*corev1.Namespace] {
	return workqueue.Events[*corev1.Namespace]{
		Listed:  func(*corev1.Namespace) {},
		Changed: c.enqueueNamespace,
		Ignore: func(old, updated *corev1.Namespace) bool {
			return old.Status.Phase == updated.Status.Phase && equality.Semantic.DeepEqual(old.Labels, updated.Labels)
		},
	}
}

func (c *Controller) enqueueNamespace(namespace *corev1.Namespace) {
	accounts, err := c.cfg.ServiceAccounts.GetTypedIndexer().ByTypedIndex(toolscache.NamespaceIndex, namespace.Name)
	if err != nil {
		panic("tokengeneration: internal error: " + err.Error()) // there is no such index
	}
	for _, account := range accounts {
		c.enqueue(account)
	}
}
