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

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/cabundle"
	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/internal/workqueue"
	"github.com/sakeeper/sakeeper/pkg/internal/writebackoff"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// Name is that of the queue, and in audit logs.
const Name = "token-generation-controller"

const (
	// perSecond and burst pace what happens when generation is switched on in a big
	// cluster: 500 Secrets at once, and 10,000 in 95 s. Each takes two writes, or three
	// requests where it is the first of its namespace.
	perSecond = 100
	burst     = 500
	// defaultUnderway is as long as an API server gives an admission webhook by default.
	defaultUnderway = 10 * time.Second
	// quiet is how long an account is left alone after one of its Secrets went, so that
	// whoever drops the reference comes first.
	quiet = time.Second
	// grace is how long a Secret may be missing after its account was written, because
	// tools that apply or restore both write the account first.
	grace = 5 * time.Second
	// surveyedNamespaces bounds how many are remembered. A forgotten one costs a list.
	surveyedNamespaces = 10000
)

// Tokens makes legacy tokens and decides whether they may be written; see
// [canary.Gate.Write].
type Tokens interface {
	Write(ctx context.Context, claims token.LegacyClaims, wake func(), write func(ctx context.Context, compact string) error) error
}

// Client is what the controller writes.
type Client interface {
	typedcorev1.SecretsGetter
	typedcorev1.ServiceAccountsGetter
}

// Config is what the controller needs; all but the last three is required.
type Config struct {
	// Mode is [ModeLabelled] or [ModeAll].
	Mode   Mode
	Client Client
	// Metadata lists token Secrets without fetching their data.
	Metadata        metadata.Interface
	Namespaces      toolscache.TypedSharedIndexInformer[*corev1.Namespace]
	Secrets         toolscache.TypedSharedIndexInformer[*cache.TokenSecret]
	ServiceAccounts toolscache.TypedSharedIndexInformer[*corev1.ServiceAccount]
	Tokens          Tokens
	// CA returns the bundle that Secrets should have at this moment.
	CA       func() cabundle.Bundle
	Recorder record.EventRecorder
	Clock    clock.PassiveClock
	// Underway is how long a create without an answer may still be carried out, and so
	// how long accounts that existed at the start wait for their first Secret. Zero:
	// 10 s.
	Underway time.Duration
	// Registerer gets the metrics. Nil: they are not exported.
	Registerer prometheus.Registerer
}

// Controller makes token Secrets for ServiceAccounts.
type Controller struct {
	cfg     Config
	queue   *workqueue.Queue[toolscache.ObjectName]
	synced  []toolscache.DoneChecker
	started time.Time // set before the first sync
	plans   *plans
	// surveyed are namespaces of which the cache was seen to show every token Secret
	// that there was after the start.
	surveyed *lru.Cache
	slots    *workqueue.KeyedLimiter[toolscache.ObjectName]
	truces   *writebackoff.Tracker[contested]
}

// contested is an account over whose token Secret somebody may disagree.
type contested struct{ namespace, name, uid string }

// New checks cfg and registers with the informers, which the caller starts.
func New(cfg Config) (*Controller, error) {
	switch {
	case cfg.Mode != ModeLabelled && cfg.Mode != ModeAll:
		return nil, fmt.Errorf("%s: Mode %q is neither %s nor %s", Name, cfg.Mode, ModeLabelled, ModeAll)
	case cfg.Client == nil, cfg.Metadata == nil, cfg.Namespaces == nil, cfg.Secrets == nil, cfg.ServiceAccounts == nil:
		return nil, fmt.Errorf("%s: Client, Metadata, Namespaces, Secrets and ServiceAccounts are required", Name)
	case cfg.Tokens == nil, cfg.CA == nil, cfg.Recorder == nil, cfg.Clock == nil:
		return nil, fmt.Errorf("%s: Tokens, CA, Recorder and Clock are required", Name)
	}
	if cfg.Underway == 0 {
		cfg.Underway = defaultUnderway
	}
	c := &Controller{
		cfg:      cfg,
		plans:    newPlans(),
		surveyed: lru.New(surveyedNamespaces),
		slots:    workqueue.NewKeyedLimiter[toolscache.ObjectName](cfg.Clock, perSecond, burst),
		truces:   writebackoff.New[contested]("generated tokens", cfg.Clock, cfg.Registerer),
	}
	var err error
	if c.queue, err = workqueue.New(workqueue.Config[toolscache.ObjectName]{
		Name: Name, Sync: c.sync, Workers: api.DefaultWorkers, Registerer: cfg.Registerer,
	}); err != nil {
		return nil, err
	}
	accounts, errAccounts := workqueue.Watch(cfg.ServiceAccounts, c.accountEvents())
	secrets, errSecrets := workqueue.Watch(cfg.Secrets, c.secretEvents())
	namespaces, errNamespaces := workqueue.Watch(cfg.Namespaces, c.namespaceEvents())
	c.synced = []toolscache.DoneChecker{accounts, secrets, namespaces}
	return c, errors.Join(errAccounts, errSecrets, errNamespaces)
}

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	c.started = c.cfg.Clock.Now()
	return c.queue.Run(ctx, c.synced...)
}

// Ready tells whether every ServiceAccount that existed at the start was handled
// once. It may still wait for its turn.
func (c *Controller) Ready() bool { return c.queue.Ready() }

func (c *Controller) sync(ctx context.Context, key toolscache.ObjectName) (time.Duration, error) {
	s := c.gather(key)
	d := decide(s)
	if s.begins(d) {
		if wait := c.turn(ctx, s.account); wait > 0 {
			return wait, workqueue.ErrRequeueLater
		}
	}
	if d.action == look {
		if err := c.look(ctx, &s); err != nil {
			return 0, err
		}
		d = decide(s)
	}
	switch d.action {
	case settle:
		return s.settled.Sub(s.now), nil
	case probe:
		return c.probe(ctx, key, s.plan)
	case refer:
		return c.refer(ctx, s.account, d)
	case generate:
		return c.generate(ctx, s.account)
	case discard:
		return 0, c.discard(ctx, key, d)
	case none:
		c.conclude(key, s)
	case await, look:
	}
	klog.FromContext(ctx).V(4).Info("Skipped service account", "reason", d.reason)
	return 0, nil
}

// gather reads caches and memory.
func (c *Controller) gather(key toolscache.ObjectName) state {
	s := state{mode: c.cfg.Mode, now: c.cfg.Clock.Now(), started: c.started, settled: c.settled(), plan: c.plans.of(key)}
	if namespace, ok := cache.Get(c.cfg.Namespaces, key.Namespace); ok {
		s.namespace = namespace
	}
	account, ok := cache.Get(c.cfg.ServiceAccounts, key.String())
	if !ok {
		return s
	}
	s.account = account
	if s.plan.account != account.UID && !s.plan.inDoubt() && !s.plan.withdrawable() {
		c.plans.drop(key) // that of a former account, of which nothing is left to do
		s.plan = plan{}
	}
	var err error
	if s.secrets, err = c.cfg.Secrets.GetTypedIndexer().ByTypedIndex(cache.ByAccount, key.String()); err != nil {
		panic("tokengeneration: internal error: " + err.Error()) // there is no such index
	}
	s.missing = c.missing(account)
	return s
}

// missing are the names in account.secrets of which the cache has no token Secret.
func (c *Controller) missing(account *corev1.ServiceAccount) []string {
	var names []string
	for _, ref := range account.Secrets {
		if _, ok := cache.Get(c.cfg.Secrets, account.Namespace+"/"+ref.Name); !ok {
			names = append(names, ref.Name)
		}
	}
	return names
}

// settled is when nothing that a former process has sent can be under way any more.
func (c *Controller) settled() time.Time { return c.started.Add(c.cfg.Underway) }

// conclude drops the plan of an account that is right, or that nothing is done for, as
// soon as the caches show what was made.
func (c *Controller) conclude(key toolscache.ObjectName, s state) {
	c.slots.Forget(key)
	cached, ok := cache.Get(c.cfg.Secrets, key.Namespace+"/"+s.plan.name)
	if s.account == nil || s.plan.secret == "" || ok && cached.UID == s.plan.secret {
		c.plans.drop(key)
	}
}

// turn returns how long nothing may be begun for account.
func (c *Controller) turn(ctx context.Context, account *corev1.ServiceAccount) time.Duration {
	if wait := c.slots.When(toolscache.MetaObjectToName(account)); wait > 0 {
		return wait
	}
	verdict := c.truces.Allow(contestedAccount(account), content)
	writebackoff.Report(ctx, c.cfg.Recorder, objectReference(account), verdict)
	return verdict.Wait
}

// content is all that is ever written: that there is a token Secret, and a reference.
const content = "token"

func contestedAccount(account *corev1.ServiceAccount) contested {
	return contested{namespace: account.Namespace, name: account.Name, uid: string(account.UID)}
}

func objectReference(account *corev1.ServiceAccount) *corev1.ObjectReference {
	return &corev1.ObjectReference{Kind: "ServiceAccount", APIVersion: "v1", Namespace: account.Namespace, Name: account.Name, UID: account.UID}
}

func (c *Controller) accountEvents() workqueue.Events[*corev1.ServiceAccount] {
	enqueue := func(account *corev1.ServiceAccount) { c.queue.Add(toolscache.MetaObjectToName(account)) }
	return workqueue.Events[*corev1.ServiceAccount]{
		Listed: enqueue,
		Changed: func(account *corev1.ServiceAccount) {
			if len(c.missing(account)) > 0 {
				c.queue.AddAfter(toolscache.MetaObjectToName(account), grace)
				return
			}
			enqueue(account)
		},
		Deleted: enqueue,
	}
}

func (c *Controller) secretEvents() workqueue.Events[*cache.TokenSecret] {
	return workqueue.Events[*cache.TokenSecret]{
		Listed:  func(*cache.TokenSecret) {}, // every account is listed itself
		Changed: func(secret *cache.TokenSecret) { c.queue.Add(secret.AccountName()) },
		Deleted: func(secret *cache.TokenSecret) {
			c.plans.gone(secret)
			c.queue.AddAfter(secret.AccountName(), quiet)
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
		c.queue.Add(toolscache.MetaObjectToName(account))
	}
}
