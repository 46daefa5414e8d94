package tokenrequest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/cabundle"
	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/internal/stopwatch"
	"github.com/sakeeper/sakeeper/pkg/internal/workqueue"
	"github.com/sakeeper/sakeeper/pkg/internal/writebackoff"
)

// Name is the name of the controller, its queue and its user agent.
const Name = "token-request-controller"

const (
	// perSecond and burst limit renewals that are not urgent, such as those for a new CA:
	// 500 at once, and 5,000 in 90 s.
	perSecond = 50
	burst     = 500
	// requeueAfter is the delay after a conflict: an admission webhook may cause one
	// without a change of the Secret, and so without an event.
	requeueAfter = time.Second
)

// Client is what the controller reads and writes with.
type Client interface {
	typedcorev1.SecretsGetter
	typedcorev1.ServiceAccountsGetter
}

// Config is the input of [New]. All fields are required but AllNamespaces, PublicServer and
// Registerer.
type Config struct {
	Client Client
	// Namespaces, Secrets and ServiceAccounts are run by the caller, and Secrets has the
	// indices of pkg/cache.
	Namespaces      toolscache.TypedSharedIndexInformer[*corev1.Namespace]
	Secrets         toolscache.TypedSharedIndexInformer[*cache.ManagedSecret]
	ServiceAccounts toolscache.TypedSharedIndexInformer[*corev1.ServiceAccount]
	// CA returns the current CA bundle, for Secrets. It is called for each decision,
	// concurrently. After a change, call [Controller.EnqueueAll].
	CA func() cabundle.Bundle
	// AllNamespaces serves all namespaces. False: only those with the label
	// sakeeper.io/token-requests=allowed.
	AllNamespaces bool
	// PublicServer is the https URL of the API server in Secrets that do not name one.
	// Empty: formats that need a URL require the annotation sakeeper.io/server.
	PublicServer string
	// Recorder records events about Secrets.
	Recorder record.EventRecorder
	// Clock is the time of day, compared with the expiry of tokens. It should follow the API
	// server's clock, as [kube.ServerClock] does, and may be set forward and back.
	Clock clock.PassiveClock
	// Monotonic measures elapsed time: a clock that is never set, such as
	// [k8s.io/utils/clock.RealClock].
	Monotonic clock.PassiveClock
	// Workers is how many Secrets are handled at a time. Zero: one.
	Workers int
	// Registerer exports the metrics. Nil: they are not exported.
	Registerer prometheus.Registerer
}

// Controller renews the tokens in Secrets. Make one with [New].
type Controller struct {
	cfg       Config
	queue     *workqueue.Queue[toolscache.ObjectName]
	synced    []toolscache.DoneChecker
	notes     *notes
	stopwatch *stopwatch.Stopwatch
	limiter   *workqueue.KeyedLimiter[toolscache.ObjectName]
	backoff   *writebackoff.Tracker[objectKey]
}

// objectKey identifies a Secret whose token other clients may keep changing.
type objectKey struct{ namespace, name, uid string }

// New checks cfg, adds event handlers to the informers and registers the metrics. It sends
// no request.
func New(cfg Config) (*Controller, error) {
	switch {
	case cfg.Client == nil, cfg.Namespaces == nil, cfg.Secrets == nil, cfg.ServiceAccounts == nil:
		return nil, fmt.Errorf("%s: Client, Namespaces, Secrets and ServiceAccounts are required", Name)
	case cfg.CA == nil, cfg.Recorder == nil, cfg.Clock == nil, cfg.Monotonic == nil:
		return nil, fmt.Errorf("%s: CA, Recorder, Clock and Monotonic are required", Name)
	}
	if cfg.PublicServer != "" {
		if err := CheckServer(cfg.PublicServer); err != nil {
			return nil, fmt.Errorf("%s: PublicServer: %q %w", Name, cfg.PublicServer, err)
		}
	}
	c := &Controller{
		cfg:       cfg,
		notes:     newNotes(),
		stopwatch: stopwatch.New(cfg.Clock, cfg.Monotonic),
		limiter:   workqueue.NewKeyedLimiter[toolscache.ObjectName](cfg.Clock, perSecond, burst),
		backoff:   writebackoff.New[objectKey]("managed tokens", cfg.Clock, cfg.Registerer),
	}
	var err error
	if c.queue, err = workqueue.New(workqueue.Config[toolscache.ObjectName]{
		Name: Name, Sync: c.sync, Workers: cfg.Workers, Registerer: cfg.Registerer,
	}); err != nil {
		return nil, err
	}
	secrets, errSecrets := workqueue.Watch(cfg.Secrets, c.secretEvents())
	accounts, errAccounts := workqueue.Watch(cfg.ServiceAccounts, c.accountEvents())
	namespaces, errNamespaces := workqueue.Watch(cfg.Namespaces, c.namespaceEvents())
	c.synced = []toolscache.DoneChecker{secrets, accounts, namespaces}
	return c, errors.Join(errSecrets, errAccounts, errNamespaces, c.register(cfg.Registerer))
}

// Run handles Secrets until ctx ends, and returns after the last worker. Call it once, and
// run the informers beside it.
func (c *Controller) Run(ctx context.Context) error {
	var background sync.WaitGroup
	defer background.Wait()
	background.Go(func() { c.stopwatch.WatchClocks(ctx, c.EnqueueAll) })
	return c.queue.Run(ctx, c.synced...)
}

// Ready returns true if every Secret that existed at the start was handled once.
func (c *Controller) Ready() bool { return c.queue.Ready() }

// EnqueueAll queues every cached Secret; call it when the CA changed. The writes that
// follow are rate limited. It is safe for concurrent use.
func (c *Controller) EnqueueAll() {
	workqueue.EnqueueAll(c.cfg.Secrets, func(secret *cache.ManagedSecret, delay time.Duration) {
		c.queue.AddAfter(toolscache.MetaObjectToName(secret), delay)
	})
}

func (c *Controller) enqueue(secret *cache.ManagedSecret) {
	c.queue.Add(toolscache.MetaObjectToName(secret))
}

func (c *Controller) sync(ctx context.Context, key toolscache.ObjectName) (time.Duration, error) {
	secret, _ := cache.Get(c.cfg.Secrets, key.String())
	s := c.gather(secret)
	if secret != nil && c.notes.get(secret.UID).isNewerThan(secret, s.now) {
		return requeueAfter, nil
	}
	d := decide(s)
	if secret != nil {
		defer c.deleteStaleNote(secret)
		c.recordProblem(ctx, secret, d)
		if wait := c.notes.get(secret.UID).conflictDelay(secret, s.now); wait > 0 && (d.action == renew || d.action == remove) {
			return wait, workqueue.ErrRequeueLater
		}
	}
	switch d.action {
	case renew:
		return c.renew(ctx, s, d)
	case remove:
		return c.remove(ctx, s, d)
	case none, refuse:
		if secret != nil && d.annotate && secret.Annotations[api.ProblemAnnotation] != d.problem.text {
			return c.annotate(ctx, s, d)
		}
		c.limiter.Forget(key)
	}
	klog.FromContext(ctx).V(4).Info("Skipped secret", "reason", d.reason)
	return d.wait, nil
}

// gather reads the caches and the Secret's note.
func (c *Controller) gather(secret *cache.ManagedSecret) state {
	s := state{
		secret: secret, allNamespaces: c.cfg.AllNamespaces, publicServer: c.cfg.PublicServer,
		caSum: c.cfg.CA().Sum(), now: c.cfg.Clock.Now(),
	}
	if secret == nil {
		return s
	}
	s.age = c.notes.get(secret.UID).age(secret, c.stopwatch.Elapsed())
	if namespace, ok := cache.Get(c.cfg.Namespaces, secret.Namespace); ok {
		s.namespace = namespace
	}
	if account, ok := cache.Get(c.cfg.ServiceAccounts, secret.Namespace+"/"+secret.Annotations[api.ServiceAccountAnnotation]); ok {
		s.account = account
	}
	return s
}

// deleteStaleNote deletes the note of a Secret that was deleted during its sync: the note
// may have been written after the event.
func (c *Controller) deleteStaleNote(secret *cache.ManagedSecret) {
	cached, ok := cache.Get(c.cfg.Secrets, toolscache.MetaObjectToName(secret).String())
	if !ok || cached.UID != secret.UID {
		c.notes.delete(secret.UID)
	}
}

// kind is the kind of the objects that events are about.
const kind = "Secret"

func (c *Controller) secretEvents() workqueue.Events[*cache.ManagedSecret] {
	return workqueue.Events[*cache.ManagedSecret]{
		Changed: c.enqueue,
		Deleted: func(secret *cache.ManagedSecret) {
			c.notes.delete(secret.UID)
			c.queue.Add(toolscache.MetaObjectToName(secret))
		},
	}
}

func (c *Controller) accountEvents() workqueue.Events[*corev1.ServiceAccount] {
	return workqueue.Events[*corev1.ServiceAccount]{
		Listed:  func(*corev1.ServiceAccount) {}, // the initial list of Secrets queues them all
		Changed: c.enqueueAccount,
		Deleted: c.enqueueAccount,
		Ignore: func(old, updated *corev1.ServiceAccount) bool {
			return (old.DeletionTimestamp == nil) == (updated.DeletionTimestamp == nil)
		},
	}
}

func (c *Controller) enqueueAccount(account *corev1.ServiceAccount) {
	c.enqueueBy(cache.ByAccount, account.Namespace+"/"+account.Name)
}

func (c *Controller) namespaceEvents() workqueue.Events[*corev1.Namespace] {
	return workqueue.Events[*corev1.Namespace]{
		Listed:  func(*corev1.Namespace) {},
		Changed: func(namespace *corev1.Namespace) { c.enqueueBy(toolscache.NamespaceIndex, namespace.Name) },
		Ignore: func(old, updated *corev1.Namespace) bool {
			return old.Status.Phase == updated.Status.Phase &&
				old.Labels[api.TokenRequestsLabel] == updated.Labels[api.TokenRequestsLabel]
		},
	}
}

func (c *Controller) enqueueBy(index, value string) {
	secrets, err := c.cfg.Secrets.GetTypedIndexer().ByTypedIndex(index, value)
	if err != nil {
		panic("tokenrequest: internal error: " + err.Error()) // there is no such index
	}
	for _, secret := range secrets {
		c.queue.Add(toolscache.MetaObjectToName(secret))
	}
}
