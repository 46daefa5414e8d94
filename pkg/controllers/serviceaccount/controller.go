package serviceaccount

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/internal/workqueue"
	"github.com/sakeeper/sakeeper/pkg/internal/writebackoff"
)

// Name is kube-controller-manager's name of this controller.
const Name = "serviceaccount-controller"

// Config is what the controller needs; all but the last two is required.
type Config struct {
	Client          typedcorev1.ServiceAccountsGetter
	Namespaces      toolscache.TypedSharedIndexInformer[*corev1.Namespace]
	ServiceAccounts toolscache.TypedSharedIndexInformer[*corev1.ServiceAccount]
	// Names are the ServiceAccounts that every active namespace gets.
	Names    []string
	Recorder record.EventRecorder
	Clock    clock.PassiveClock
	// Registerer gets the metrics. Nil: they are not exported.
	Registerer prometheus.Registerer
}

// Controller creates missing ServiceAccounts.
type Controller struct {
	cfg    Config
	queue  *workqueue.Queue[toolscache.ObjectName]
	truces *writebackoff.Tracker[contested]
	synced []toolscache.DoneChecker
}

// contested is a ServiceAccount in one life of its namespace.
type contested struct {
	namespace types.UID
	name      string
}

// New checks cfg and registers with the informers, which the caller starts.
func New(cfg Config) (*Controller, error) {
	switch {
	case cfg.Client == nil, cfg.Namespaces == nil, cfg.ServiceAccounts == nil, cfg.Recorder == nil, cfg.Clock == nil:
		return nil, fmt.Errorf("%s: Client, Namespaces, ServiceAccounts, Recorder and Clock are required", Name)
	case len(cfg.Names) == 0:
		return nil, fmt.Errorf("%s: at least one name is required", Name)
	}
	c := &Controller{cfg: cfg, truces: writebackoff.New[contested]("serviceaccounts", cfg.Clock, cfg.Registerer)}
	var err error
	if c.queue, err = workqueue.New(workqueue.Config[toolscache.ObjectName]{
		Name: Name, Sync: c.sync, Workers: api.DefaultWorkers, Registerer: cfg.Registerer,
	}); err != nil {
		return nil, err
	}
	namespaces, errNamespaces := workqueue.Watch(cfg.Namespaces, workqueue.Events[*corev1.Namespace]{
		Changed: c.enqueueNamespace,
		// Labels and the like do not matter, and in the moment between our create and
		// its event an update would cost a create that the API server refuses.
		Ignore: func(old, updated *corev1.Namespace) bool { return old.Status.Phase == updated.Status.Phase },
	})
	accounts, errAccounts := workqueue.Watch(cfg.ServiceAccounts, workqueue.Events[*corev1.ServiceAccount]{Deleted: c.enqueueAccount})
	c.synced = []toolscache.DoneChecker{namespaces, accounts}
	return c, errors.Join(errNamespaces, errAccounts)
}

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.queue.Run(ctx, c.synced...) }

// Ready tells whether every namespace that existed at the start was handled once.
func (c *Controller) Ready() bool { return c.queue.Ready() }

func (c *Controller) sync(ctx context.Context, key toolscache.ObjectName) (time.Duration, error) {
	var s state
	object := contested{name: key.Name}
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
	verdict := c.truces.Allow(object, content)
	writebackoff.Report(ctx, c.cfg.Recorder, namespaceReference(key.Namespace), verdict)
	if verdict.Wait > 0 {
		return verdict.Wait, nil
	}
	return 0, c.create(ctx, key, object, namespace.CreationTimestamp.Time)
}

// content is all that is ever written: that there is an account.
const content = "exists"

func (c *Controller) create(ctx context.Context, key toolscache.ObjectName, object contested, since time.Time) error {
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}
	_, err := c.cfg.Client.ServiceAccounts(key.Namespace).Create(ctx, account, metav1.CreateOptions{})
	switch {
	case err == nil:
		c.truces.Record(object, content)
		c.queue.Completed(since)
		klog.FromContext(ctx).V(2).Info("Created service account", "serviceAccount", klog.KObj(account))
		return nil
	case apierrors.IsAlreadyExists(err):
		return nil // somebody was faster
	case apierrors.IsNotFound(err), apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return nil // the namespace went, or is going: its next life begins with an event
	}
	err = fmt.Errorf("create service account %s: %w", key, err)
	if apierrors.IsForbidden(err) && workqueue.Report(ctx) {
		c.cfg.Recorder.Eventf(namespaceReference(key.Namespace), corev1.EventTypeWarning, api.ReasonFailedCreateServiceAccount, "The API server refuses to %v", err)
	}
	return err
}

func namespaceReference(name string) *corev1.ObjectReference {
	return &corev1.ObjectReference{Kind: "Namespace", APIVersion: "v1", Name: name}
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
