package accounttemplate

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/internal/templatestatus"
	"github.com/sakeeper/sakeeper/pkg/internal/workqueue"
	"github.com/sakeeper/sakeeper/pkg/internal/writebackoff"
)

// Name is the name of this controller, which kube-controller-manager does not have.
const Name = "service-account-template-controller"

// Config has the inputs of the controller. All but Workers and Registerer are required.
type Config struct {
	Client     typedcorev1.ServiceAccountsGetter
	Namespaces toolscache.TypedSharedIndexInformer[*corev1.Namespace]
	Accounts   toolscache.TypedSharedIndexInformer[*cache.Account]
	Templates  *Templates
	Recorder   record.EventRecorder
	Clock      clock.PassiveClock
	// Workers is how many ServiceAccounts are handled at a time. Zero: one.
	Workers int
	// Registerer registers the metrics. Nil: they are not exported.
	Registerer prometheus.Registerer
}

// Controller applies templates.
type Controller struct {
	cfg      Config
	queue    *workqueue.Queue[toolscache.ObjectName]
	statuses *workqueue.Queue[allStatuses]
	backoff  *writebackoff.Tracker[objectKey]
	synced   []toolscache.DoneChecker
	pace     templatestatus.Pace // of statuses

	mu sync.Mutex
	// problems say why ServiceAccounts are not as templates say.
	problems map[toolscache.ObjectName]string
}

// New checks cfg and adds event handlers to the informers, which the caller starts.
func New(cfg Config) (*Controller, error) {
	if cfg.Client == nil || cfg.Namespaces == nil || cfg.Accounts == nil || cfg.Templates == nil || cfg.Recorder == nil || cfg.Clock == nil {
		return nil, fmt.Errorf("%s: Client, Namespaces, Accounts, Templates, Recorder and Clock are required", Name)
	}
	c := &Controller{
		cfg: cfg, problems: map[toolscache.ObjectName]string{}, pace: templatestatus.Pace{Clock: cfg.Clock, Interval: templatestatus.Interval},
		backoff: writebackoff.New[objectKey]("templated serviceaccounts", cfg.Clock, cfg.Registerer),
	}
	var errQueue, errStatuses error
	c.queue, errQueue = workqueue.New(workqueue.Config[toolscache.ObjectName]{
		Name: Name, Sync: c.sync, Workers: cfg.Workers, Registerer: cfg.Registerer,
	})
	c.statuses, errStatuses = workqueue.New(workqueue.Config[allStatuses]{
		Name: Name + "-status", Sync: c.syncStatuses, Registerer: cfg.Registerer,
	})
	if err := errors.Join(errQueue, errStatuses); err != nil {
		return nil, err
	}
	namespaces, errNamespaces := workqueue.Watch(cfg.Namespaces, workqueue.Events[*corev1.Namespace]{
		Changed: c.enqueueNamespace, Deleted: c.enqueueNamespace,
		Ignore: func(old, updated *corev1.Namespace) bool {
			return old.Status.Phase == updated.Status.Phase && equality.Semantic.DeepEqual(old.Labels, updated.Labels)
		},
	})
	accounts, errAccounts := workqueue.Watch(cfg.Accounts, workqueue.Events[*cache.Account]{
		Changed: c.enqueueAccount, Deleted: c.enqueueAccount,
		Ignore: func(old, updated *cache.Account) bool {
			return old.DeletionTimestamp == nil == (updated.DeletionTimestamp == nil) && equality.Semantic.DeepEqual(old.Fields, updated.Fields)
		},
	})
	templates, errTemplates := workqueue.Watch(cfg.Templates.Informer, workqueue.Events[*cache.Template]{
		Listed:  c.enqueueMissing, // every ServiceAccount that exists is listed too
		Changed: c.enqueueTemplate, Deleted: c.enqueueTemplate,
		Ignore: func(old, updated *cache.Template) bool { return old.Generation == updated.Generation },
	})
	c.synced = []toolscache.DoneChecker{namespaces, accounts, templates}
	return c, errors.Join(errNamespaces, errAccounts, errTemplates)
}

// Run applies templates until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return c.queue.Run(ctx, c.synced...) })
	group.Go(func() error { return c.statuses.Run(ctx, c.synced...) })
	return group.Wait()
}

// Ready returns true once every ServiceAccount that existed at the start was handled, while
// templates can be read.
func (c *Controller) Ready() bool { return c.queue.Ready() && c.cfg.Templates.Err() == nil }

// Err returns what keeps the controller from working, which is tried again, or nil.
func (c *Controller) Err() error { return c.cfg.Templates.Err() }

func (c *Controller) sync(ctx context.Context, key toolscache.ObjectName) (requeueAfter time.Duration, err error) {
	s := state{name: key.Name, templates: c.cfg.Templates.sorted()}
	s.namespace, _ = cache.Get(c.cfg.Namespaces, key.Namespace)
	s.account, _ = cache.Get(c.cfg.Accounts, key.String())
	p := decide(s)
	if len(p.selected) > 0 || p.action != none {
		c.statuses.AddAfter(allStatuses{}, templatestatus.Delay)
	}
	if p.action == none {
		klog.FromContext(ctx).V(4).Info("Skipped service account", "reason", p.reason)
		c.note(key, "")
		return 0, nil
	}
	return c.apply(ctx, key, s, p)
}

// note keeps what is wrong with a ServiceAccount for the status of its templates. An empty problem is
// none.
func (c *Controller) note(key toolscache.ObjectName, problem string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if problem == "" {
		delete(c.problems, key)
	} else {
		c.problems[key] = problem
	}
}

func (c *Controller) enqueueNamespace(namespace *corev1.Namespace) {
	for _, obj := range c.accountsIn(namespace.Name) {
		c.queue.Add(toolscache.MetaObjectToName(obj))
	}
	for _, t := range c.cfg.Templates.sorted() {
		c.enqueueMissingIn(namespace, t, 0)
	}
	c.statuses.AddAfter(allStatuses{}, templatestatus.Delay)
}

func (c *Controller) enqueueAccount(account *cache.Account) {
	c.queue.Add(toolscache.MetaObjectToName(account))
	c.statuses.AddAfter(allStatuses{}, templatestatus.Delay)
}

// enqueueTemplate queues every ServiceAccount: those that the template selected before are not known.
func (c *Controller) enqueueTemplate(t *cache.Template) {
	workqueue.EnqueueAll(c.cfg.Accounts, func(account *cache.Account, delay time.Duration) {
		c.queue.AddAfter(toolscache.MetaObjectToName(account), delay)
	})
	c.enqueueMissing(t)
}

func (c *Controller) enqueueMissing(t *cache.Template) {
	if t.Spec.Create {
		workqueue.EnqueueAll(c.cfg.Namespaces, func(namespace *corev1.Namespace, delay time.Duration) {
			c.enqueueMissingIn(namespace, t, delay)
		})
	}
	c.statuses.AddAfter(allStatuses{}, templatestatus.Delay)
}

// enqueueMissingIn queues the ServiceAccounts that a template creates in a namespace.
func (c *Controller) enqueueMissingIn(namespace *corev1.Namespace, t *cache.Template, delay time.Duration) {
	if !t.Spec.Create || !t.SelectsNamespace(namespace) {
		return
	}
	for _, name := range t.Names() {
		c.queue.AddAfter(toolscache.NewObjectName(namespace.Name, name), delay)
	}
}

// accountsIn returns the ServiceAccounts of a namespace.
func (c *Controller) accountsIn(namespace string) []*cache.Account {
	objects, err := c.cfg.Accounts.GetIndexer().ByIndex(toolscache.NamespaceIndex, namespace)
	if err != nil {
		panic("accounttemplate: internal error: " + err.Error()) // the informer has this index
	}
	var accounts []*cache.Account
	for _, obj := range objects {
		if account, ok := obj.(*cache.Account); ok { // always: the informer is typed
			accounts = append(accounts, account)
		}
	}
	return accounts
}
