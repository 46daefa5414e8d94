package serviceaccount

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/contention"
	"github.com/sakeeper/sakeeper/pkg/informers"
	"github.com/sakeeper/sakeeper/pkg/loop"
)

// Name is kube-controller-manager's name of this controller.
const Name = "serviceaccount-controller"

// ReasonFailedCreate is the event on a namespace whose ServiceAccount the API
// server refuses, for example because of a quota.
const ReasonFailedCreate = "FailedCreateServiceAccount"

// workers bounds the requests under way; each is one small create.
const workers = 10

// Config is what the controller needs; all but the last two is required.
type Config struct {
	Client          typedcorev1.ServiceAccountsGetter
	Namespaces      cache.TypedSharedIndexInformer[*corev1.Namespace]
	ServiceAccounts cache.TypedSharedIndexInformer[*corev1.ServiceAccount]
	// Names are the ServiceAccounts that every active namespace gets.
	Names      []string
	Recorder   record.EventRecorder
	Clock      clock.PassiveClock
	Metrics    *loop.Metrics
	Contention *contention.Metrics
}

// Controller creates missing ServiceAccounts.
type Controller struct {
	cfg    Config
	loop   *loop.Loop[cache.ObjectName]
	truces *contention.Tracker[contested]
	synced []cache.DoneChecker
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
	c := &Controller{cfg: cfg, truces: contention.New[contested]("serviceaccounts", cfg.Clock, cfg.Contention)}
	var err error
	if c.loop, err = loop.New(loop.Config[cache.ObjectName]{
		Name: Name, Sync: c.sync, Workers: workers, Metrics: cfg.Metrics,
	}); err != nil {
		return nil, err
	}
	namespaces, errNamespaces := loop.Watch(cfg.Namespaces, loop.Events[*corev1.Namespace]{
		Changed: c.enqueueNamespace,
		// Labels and the like do not matter, and in the moment between our create and
		// its event an update would cost a create that the API server refuses.
		Ignore: func(old, updated *corev1.Namespace) bool { return old.Status.Phase == updated.Status.Phase },
	})
	accounts, errAccounts := loop.Watch(cfg.ServiceAccounts, loop.Events[*corev1.ServiceAccount]{Deleted: c.enqueueAccount})
	c.synced = []cache.DoneChecker{namespaces, accounts}
	return c, errors.Join(errNamespaces, errAccounts)
}

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx, c.synced...) }

// Ready tells whether every namespace that existed at the start was handled once.
func (c *Controller) Ready() bool { return c.loop.Ready() }

func (c *Controller) sync(ctx context.Context, key cache.ObjectName) (time.Duration, error) {
	var s state
	object := contested{name: key.Name}
	namespace, ok := informers.Get(c.cfg.Namespaces, key.Namespace)
	if ok {
		s.phase, object.namespace = namespace.Status.Phase, namespace.UID
	}
	_, s.exists = informers.Get(c.cfg.ServiceAccounts, key.String())
	act, reason := decide(s)
	if act == none {
		klog.FromContext(ctx).V(4).Info("Skipped service account", "reason", reason)
		return 0, nil
	}
	verdict := c.truces.May(object, content)
	contention.Report(ctx, c.cfg.Recorder, namespaceReference(key.Namespace), verdict)
	if verdict.Wait > 0 {
		return verdict.Wait, nil
	}
	return 0, c.create(ctx, key, object, namespace.CreationTimestamp.Time)
}

// content is all that is ever written: that there is an account.
const content = "exists"

func (c *Controller) create(ctx context.Context, key cache.ObjectName, object contested, since time.Time) error {
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}
	_, err := c.cfg.Client.ServiceAccounts(key.Namespace).Create(ctx, account, metav1.CreateOptions{})
	switch {
	case err == nil:
		c.truces.Wrote(object, content)
		c.loop.Completed(since)
		klog.FromContext(ctx).V(2).Info("Created service account", "serviceAccount", klog.KObj(account))
		return nil
	case apierrors.IsAlreadyExists(err):
		return nil // somebody was faster
	case apierrors.IsNotFound(err), apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return nil // the namespace went, or is going: its next life begins with an event
	}
	err = fmt.Errorf("create service account %s: %w", key, err)
	if apierrors.IsForbidden(err) && loop.Report(ctx) {
		c.cfg.Recorder.Eventf(namespaceReference(key.Namespace), corev1.EventTypeWarning, ReasonFailedCreate, "The API server refuses to %v", err)
	}
	return err
}

func namespaceReference(name string) *corev1.ObjectReference {
	return &corev1.ObjectReference{Kind: "Namespace", APIVersion: "v1", Name: name}
}

func (c *Controller) enqueueNamespace(namespace *corev1.Namespace) {
	for _, name := range c.cfg.Names {
		c.loop.Add(cache.ObjectName{Namespace: namespace.Name, Name: name})
	}
}

func (c *Controller) enqueueAccount(account *corev1.ServiceAccount) {
	for _, name := range c.cfg.Names {
		if account.Name == name {
			c.loop.Add(cache.ObjectName{Namespace: account.Namespace, Name: name})
		}
	}
}
