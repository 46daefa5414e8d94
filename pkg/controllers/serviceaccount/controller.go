package serviceaccount

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/internal/apiresult"
	"github.com/sakeeper/sakeeper/pkg/internal/workqueue"
	"github.com/sakeeper/sakeeper/pkg/internal/writebackoff"
	"github.com/sakeeper/sakeeper/pkg/kube"
)

// Name is kube-controller-manager's name of this controller.
const Name = "serviceaccount-controller"

// Config has the inputs of the controller. All but Registerer are required.
type Config struct {
	Client          typedcorev1.ServiceAccountsGetter
	Namespaces      toolscache.TypedSharedIndexInformer[*corev1.Namespace]
	ServiceAccounts toolscache.TypedSharedIndexInformer[*corev1.ServiceAccount]
	// Names are the ServiceAccounts that every active namespace must have.
	Names    []string
	Recorder record.EventRecorder
	Clock    clock.PassiveClock
	// Workers is how many ServiceAccounts are handled at a time. Zero: one.
	Workers int
	// Registerer registers the metrics. Nil: they are not exported.
	Registerer prometheus.Registerer
}

// Controller creates missing ServiceAccounts.
type Controller struct {
	cfg     Config
	queue   *workqueue.Queue[toolscache.ObjectName]
	backoff *writebackoff.Tracker[objectKey]
	synced  []toolscache.DoneChecker
}

// objectKey identifies a ServiceAccount for the write backoff. A namespace that is created
// again has another UID, and its ServiceAccounts begin without backoff.
type objectKey struct {
	namespace types.UID
	name      string
}

// New checks cfg and adds event handlers to the informers, which the caller starts.
func New(cfg Config) (*Controller, error) {
	switch {
	case cfg.Client == nil, cfg.Namespaces == nil, cfg.ServiceAccounts == nil, cfg.Recorder == nil, cfg.Clock == nil:
		return nil, fmt.Errorf("%s: Client, Namespaces, ServiceAccounts, Recorder and Clock are required", Name)
	case len(cfg.Names) == 0:
		return nil, fmt.Errorf("%s: at least one name is required", Name)
	}
	c := &Controller{cfg: cfg, backoff: writebackoff.New[objectKey]("serviceaccounts", cfg.Clock, cfg.Registerer)}
	var err error
	if c.queue, err = workqueue.New(workqueue.Config[toolscache.ObjectName]{
		Name: Name, Sync: c.sync, Workers: cfg.Workers, Registerer: cfg.Registerer,
	}); err != nil {
		return nil, err
	}
	namespaces, errNamespaces := workqueue.Watch(cfg.Namespaces, workqueue.Events[*corev1.Namespace]{
		Changed: c.enqueueNamespace,
		// Only the phase matters. Between our create and its event, any other update would
		// cause a second create, which the API server refuses.
		Ignore: func(old, updated *corev1.Namespace) bool { return old.Status.Phase == updated.Status.Phase },
	})
	accounts, errAccounts := workqueue.Watch(cfg.ServiceAccounts, workqueue.Events[*corev1.ServiceAccount]{Deleted: c.enqueueAccount})
	c.synced = []toolscache.DoneChecker{namespaces, accounts}
	return c, errors.Join(errNamespaces, errAccounts)
}

// Run creates ServiceAccounts until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.queue.Run(ctx, c.synced...) }

// Ready returns true once every namespace that existed at the start was handled.
func (c *Controller) Ready() bool { return c.queue.Ready() }

func (c *Controller) sync(ctx context.Context, key toolscache.ObjectName) (time.Duration, error) {
	var s state
	object := objectKey{name: key.Name}
	namespace, ok := cache.Get(c.cfg.Namespaces, key.Namespace)
	if ok {
		s.phase, object.namespace = namespace.Status.Phase, namespace.UID
	}
	_, s.exists = cache.Get(c.cfg.ServiceAccounts, key.String())
	act, reason := decide(s)
	if act == none {
		klog.FromContext(ctx).V(4).Info("Skipped service account", "reason", reason)
		return 0, nil
	}
	allowed := c.backoff.Allow(object, content)
	writebackoff.Report(ctx, c.cfg.Recorder, kube.NamespaceReference(key.Namespace), allowed)
	if allowed.Wait > 0 {
		return allowed.Wait, nil
	}
	if err := c.create(ctx, key, object, namespace.CreationTimestamp.Time); err != nil {
		return 0, err
	}
	return lookAgain, nil
}

// lookAgain is when a ServiceAccount that was created is decided on again. One that is deleted while
// the watch is broken, before the cache has it, has no event.
const lookAgain = time.Minute

// content is the write backoff's name for the only write: the ServiceAccount has no
// fields to differ in.
const content = "exists"

func (c *Controller) create(ctx context.Context, key toolscache.ObjectName, object objectKey, namespaceCreated time.Time) error {
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}
	_, err := c.cfg.Client.ServiceAccounts(key.Namespace).Create(ctx, account, metav1.CreateOptions{})
	if err == nil {
		c.backoff.Record(object, content)
		c.queue.Completed(namespaceCreated)
		klog.FromContext(ctx).V(2).Info("Created service account", "serviceAccount", klog.KObj(account))
	}
	return apiresult.Write{
		Doing: "create service account " + key.String(), Recorder: c.cfg.Recorder,
		Object: kube.NamespaceReference(key.Namespace), Reason: api.ReasonFailedCreateServiceAccount,
	}.Create(ctx, err)
}

func (c *Controller) enqueueNamespace(namespace *corev1.Namespace) {
	for _, name := range c.cfg.Names {
		c.queue.Add(toolscache.ObjectName{Namespace: namespace.Name, Name: name})
	}
}

func (c *Controller) enqueueAccount(account *corev1.ServiceAccount) {
	for _, name := range c.cfg.Names {
		if account.Name == name {
			c.queue.Add(toolscache.ObjectName{Namespace: account.Namespace, Name: name})
		}
	}
}
