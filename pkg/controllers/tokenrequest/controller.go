package tokenrequest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/cabundle"
	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/internal/stopwatch"
	"github.com/sakeeper/sakeeper/pkg/internal/workqueue"
	"github.com/sakeeper/sakeeper/pkg/internal/writebackoff"
)

// Name is that of the queue, and in audit logs.
const Name = "token-request-controller"

const (
	// perSecond and burst pace renewals that nobody waits for, such as those of a new CA:
	// 500 at once, and 5,000 in 90 s.
	perSecond = 50
	burst     = 500
	// lookAgain is when to look again after a conflict: not every one has an event
	// behind it, because admission may answer with one too.
	lookAgain = time.Second
)

// Client is what the controller writes.
type Client interface {
	typedcorev1.SecretsGetter
	typedcorev1.ServiceAccountsGetter
}

// Config is what the controller needs; all but what says otherwise is required.
type Config struct {
	Client          Client
	Namespaces      toolscache.TypedSharedIndexInformer[*corev1.Namespace]
	Secrets         toolscache.TypedSharedIndexInformer[*cache.ManagedSecret]
	ServiceAccounts toolscache.TypedSharedIndexInformer[*corev1.ServiceAccount]
	// CA returns the bundle that Secrets should have at this moment.
	CA func() cabundle.Bundle
	// Everywhere serves all namespaces, not only those with the label.
	Everywhere bool
	// PublicServer is the URL of the API server for Secrets that name none; may be
	// empty.
	PublicServer string
	Recorder     record.EventRecorder
	// Clock should be near to the API server's; see [kube.ServerClock]. Running only runs: nobody
	// corrects it.
	Clock, Running clock.PassiveClock
	// Metrics, Contention and Registerer may be nil.
	// Registerer gets the metrics. Nil: they are not exported.
	Registerer prometheus.Registerer
}

// Controller keeps tokens in Secrets fresh.
type Controller struct {
	cfg    Config
	queue  *workqueue.Queue[toolscache.ObjectName]
	synced []toolscache.DoneChecker
	notes  *notes
	watch  *stopwatch.Stopwatch
	slots  *workqueue.KeyedLimiter[toolscache.ObjectName]
	truces *writebackoff.Tracker[contested]
}

// contested is a Secret over whose content somebody may disagree.
type contested struct{ namespace, name, uid string }

// New checks cfg and registers with the informers, which the caller starts.
func New(cfg Config) (*Controller, error) {
	switch {
	case cfg.Client == nil, cfg.Namespaces == nil, cfg.Secrets == nil, cfg.ServiceAccounts == nil:
		return nil, fmt.Errorf("%s: Client, Namespaces, Secrets and ServiceAccounts are required", Name)
	case cfg.CA == nil, cfg.Recorder == nil, cfg.Clock == nil, cfg.Running == nil:
		return nil, fmt.Errorf("%s: CA, Recorder, Clock and Running are required", Name)
	}
	if cfg.PublicServer != "" {
		if err := CheckServer(cfg.PublicServer); err != nil {
			return nil, fmt.Errorf("%s: PublicServer: %q %w", Name, cfg.PublicServer, err)
		}
	}
	c := &Controller{
		cfg:    cfg,
		notes:  newNotes(),
		watch:  stopwatch.New(cfg.Clock, cfg.Running),
		slots:  workqueue.NewKeyedLimiter[toolscache.ObjectName](cfg.Clock, perSecond, burst),
		truces: writebackoff.NewGrouped("managed tokens", func(s contested) string { return s.namespace }, cfg.Clock, cfg.Registerer),
	}
	var err error
	if c.queue, err = workqueue.New(workqueue.Config[toolscache.ObjectName]{
		Name: Name, Sync: c.sync, Workers: api.DefaultWorkers, Registerer: cfg.Registerer,
	}); err != nil {
		return nil, err
	}
	secrets, errSecrets := workqueue.Watch(cfg.Secrets, c.secretEvents())
	accounts, errAccounts := workqueue.Watch(cfg.ServiceAccounts, c.accountEvents())
	namespaces, errNamespaces := workqueue.Watch(cfg.Namespaces, c.namespaceEvents())
	c.synced = []toolscache.DoneChecker{secrets, accounts, namespaces}
	return c, errors.Join(errSecrets, errAccounts, errNamespaces, c.register(cfg.Registerer))
}

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	var watching sync.WaitGroup
	defer watching.Wait()
	watching.Go(func() { c.watch.WatchClocks(ctx, c.EnqueueAll) })
	return c.queue.Run(ctx, c.synced...)
}

// Ready tells whether every Secret that existed at the start was handled once.
func (c *Controller) Ready() bool { return c.queue.Ready() }

// EnqueueAll looks at every Secret again; call it when the CA changed. The writes of
// that are paced.
func (c *Controller) EnqueueAll() {
	for _, key := range c.cfg.Secrets.GetStore().ListKeys() {
		if name, err := toolscache.ParseObjectName(key); err == nil {
			c.queue.Add(name)
		}
	}
}

func (c *Controller) sync(ctx context.Context, key toolscache.ObjectName) (time.Duration, error) {
	secret, _ := cache.Get(c.cfg.Secrets, key.String())
	s := c.gather(secret)
	if secret != nil && c.notes.of(secret.UID).outran(secret, s.now) {
		return lookAgain, nil
	}
	d := decide(s)
	if secret != nil {
		defer c.forgetGone(secret)
		c.tell(ctx, secret, d)
		if rest := c.notes.of(secret.UID).rest(secret, s.now); rest > 0 && (d.action == renew || d.action == remove) {
			return rest, workqueue.ErrRequeueLater
		}
	}
	switch d.action {
	case renew:
		return c.renew(ctx, s, d)
	case remove:
		return c.remove(ctx, s, d)
	case none, refuse:
		c.slots.Forget(key)
	}
	klog.FromContext(ctx).V(4).Info("Skipped secret", "reason", d.reason)
	return d.wait, nil
}

// gather reads caches and memory.
func (c *Controller) gather(secret *cache.ManagedSecret) state {
	s := state{
		secret: secret, everywhere: c.cfg.Everywhere, publicServer: c.cfg.PublicServer,
		caSum: c.cfg.CA().Sum(), now: c.cfg.Clock.Now(),
	}
	if secret == nil {
		return s
	}
	s.age = c.notes.of(secret.UID).age(secret, c.watch.Elapsed())
	if namespace, ok := cache.Get(c.cfg.Namespaces, secret.Namespace); ok {
		s.namespace = namespace
	}
	if account, ok := cache.Get(c.cfg.ServiceAccounts, secret.Namespace+"/"+secret.Annotations[api.ServiceAccountAnnotation]); ok {
		s.account = account
	}
	return s
}

// tell tells people what is wrong, once as long as it stays the same.
func (c *Controller) tell(ctx context.Context, secret *cache.ManagedSecret, d decision) {
	before, what := refusal{}, d.refusal
	c.notes.update(secret.UID, func(n *note) {
		before, n.told = n.told, what
		if d.action == none || d.action == refuse {
			n.failing = time.Time{} // nothing is being tried any more
		}
	})
	if what == before || what == (refusal{}) {
		return
	}
	klog.FromContext(ctx).V(2).Info("Refused to keep a token in secret", "secret", klog.KObj(secret), "reason", what.reason, "text", what.text)
	c.cfg.Recorder.Event(objectReference(secret), corev1.EventTypeWarning, what.reason, what.text)
}

// forgetGone forgets a Secret that went while it was handled: its event may have come before
// the last note of it.
func (c *Controller) forgetGone(secret *cache.ManagedSecret) {
	cached, ok := cache.Get(c.cfg.Secrets, toolscache.MetaObjectToName(secret).String())
	if !ok || cached.UID != secret.UID {
		c.notes.forget(secret.UID)
	}
}

func objectReference(secret *cache.ManagedSecret) *corev1.ObjectReference {
	return &corev1.ObjectReference{Kind: "Secret", APIVersion: "v1", Namespace: secret.Namespace, Name: secret.Name, UID: secret.UID}
}

func (c *Controller) secretEvents() workqueue.Events[*cache.ManagedSecret] {
	return workqueue.Events[*cache.ManagedSecret]{
		Changed: func(secret *cache.ManagedSecret) { c.queue.Add(toolscache.MetaObjectToName(secret)) },
		Deleted: func(secret *cache.ManagedSecret) {
			c.notes.forget(secret.UID)
			c.queue.Add(toolscache.MetaObjectToName(secret))
		},
	}
}

func (c *Controller) accountEvents() workqueue.Events[*corev1.ServiceAccount] {
	return workqueue.Events[*corev1.ServiceAccount]{
		Listed:  func(*corev1.ServiceAccount) {}, // every Secret is listed itself
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
