package tokencleaner

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/internal/workqueue"
)

// Name is kube-controller-manager's name of this controller.
const Name = "legacy-serviceaccount-token-cleaner-controller"

// Client reads and writes the objects that the controller does not take from a cache.
type Client interface {
	typedcorev1.ConfigMapsGetter
	typedcorev1.NamespacesGetter
	typedcorev1.PodsGetter
	typedcorev1.SecretsGetter
	typedcorev1.ServiceAccountsGetter
}

// Config has the inputs of the controller. All but DryRun and Registerer are required.
type Config struct {
	Client          Client
	Namespaces      toolscache.TypedSharedIndexInformer[*corev1.Namespace]
	Secrets         toolscache.TypedSharedIndexInformer[*cache.TokenSecret]
	ServiceAccounts toolscache.TypedSharedIndexInformer[*corev1.ServiceAccount]
	// ConfirmLive is for informers of Namespaces and ServiceAccounts that may be filtered or trimmed by their
	// owner: before tokens are marked or deleted, the
	// API server is asked for the settings of their namespace.
	ConfirmLive bool
	// Period is how long a token must be unused before it is marked, and how long it must
	// be marked before it is deleted.
	Period time.Duration
	// Interval is the time from the start of a pass to the start of the next.
	Interval time.Duration
	// DryRun makes the controller change nothing. Log, events and metrics report what it
	// would do.
	DryRun   bool
	Recorder record.EventRecorder
	Clock    clock.PassiveClock
	// Registerer registers the metrics. Nil: they are not exported.
	Registerer prometheus.Registerer
}

// Controller marks and deletes unused token Secrets.
type Controller struct {
	cfg     Config
	queue   *workqueue.Queue[task]
	metrics *metrics
	ready   atomic.Bool
	// pass is used only by the queue's single worker.
	pass *pass
}

// task is a key of the work queue: the name of a namespace, or begin or end, which are not
// valid names of namespaces.
type task string

const (
	// begin decides on all Secrets and queues the namespaces that need work, and then end.
	// The queue is first in, first out, so end is handled after each of them was tried once.
	begin task = "(begin)"
	end   task = "(end)"
)

// New checks cfg. The caller starts the informers.
func New(cfg Config) (*Controller, error) {
	switch {
	case cfg.Client == nil, cfg.Namespaces == nil, cfg.Secrets == nil, cfg.ServiceAccounts == nil, cfg.Recorder == nil, cfg.Clock == nil:
		return nil, fmt.Errorf("%s: Client, Namespaces, Secrets, ServiceAccounts, Recorder and Clock are required", Name)
	case cfg.Period <= 0, cfg.Interval <= 0:
		return nil, fmt.Errorf("%s: Period and Interval must be positive, not %v and %v", Name, cfg.Period, cfg.Interval)
	}
	c := &Controller{cfg: cfg}
	var err error
	if c.metrics, err = newMetrics(cfg.Registerer); err != nil {
		return nil, err
	}
	c.queue, err = workqueue.New(workqueue.Config[task]{Name: Name, Sync: c.sync, Registerer: cfg.Registerer})
	return c, err
}

// Run cleans up until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	c.queue.Add(begin)
	return c.queue.Run(ctx, c.cfg.Namespaces.HasSyncedChecker(), c.cfg.Secrets.HasSyncedChecker(), c.cfg.ServiceAccounts.HasSyncedChecker())
}

// Ready returns true once the first pass was completed, also if it was not allowed to do
// anything.
func (c *Controller) Ready() bool { return c.ready.Load() }

func (c *Controller) sync(ctx context.Context, key task) (time.Duration, error) {
	switch key {
	case begin:
		if err := c.begin(ctx); err != nil {
			return 0, err
		}
		return c.cfg.Interval, nil
	case end:
		c.end(ctx)
		return 0, nil
	default:
		return 0, c.cleanUp(ctx, string(key))
	}
}

// cleanUp marks and deletes the unused token Secrets of a namespace.
func (c *Controller) cleanUp(ctx context.Context, namespace string) error {
	ns, err := c.namespace(ctx, namespace)
	if err != nil {
		return err
	}
	counts := map[verdict]int{}
	var inPods secretNames // nil: not listed yet
	var failed failures
	for _, secret := range c.listSecrets(namespace) {
		s := c.gather(secret, ns)
		d := decide(s)
		if d.action == checkPods {
			if inPods == nil {
				if inPods, err = c.listNamesInPods(ctx, namespace); err != nil {
					return err
				}
			}
			s.mounts = inPods.mounts(secret.Name)
			d = decide(s)
		}
		if d.action == remove && !c.cfg.DryRun {
			if s, err = c.readLive(ctx, s); err != nil {
				failed.add(err)
				continue
			}
			d = decide(s)
		}
		counts[d.verdict]++
		failed.add(c.apply(ctx, s, d))
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	c.pass.replace(namespace, counts)
	c.metrics.setVerdicts(c.pass.total)
	return failed.err()
}

func (c *Controller) apply(ctx context.Context, s state, d decision) error {
	switch d.action {
	case mark:
		return c.mark(ctx, s, d)
	case remove:
		return c.remove(ctx, s, d)
	default:
		klog.FromContext(ctx).V(4).Info("Skipped token secret", "secret", klog.KObj(s.secret), "reason", d.verdict)
		return nil
	}
}

// namespace returns a namespace, or nil if there is none of that name.
func (c *Controller) namespace(ctx context.Context, name string) (found *corev1.Namespace, err error) {
	cached, ok := cache.Get(c.cfg.Namespaces, name)
	if !ok || !c.cfg.ConfirmLive {
		return cached, nil
	}
	found, err = c.cfg.Client.Namespaces().Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return cached, nil // its Secrets go with it
	}
	if err != nil {
		return nil, fmt.Errorf("get namespace %s: %w", name, err)
	}
	return found, nil
}

// readLive returns s with the namespace and the account that the API server has, because a deletion
// must not depend on a cache that may be cut off. The Secret needs no read: the deletion carries its
// resourceVersion. It lists, because the controller has no other right to read them.
func (c *Controller) readLive(ctx context.Context, s state) (state, error) {
	named := func(name string) metav1.ListOptions {
		return metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()}
	}
	namespaces, err := c.cfg.Client.Namespaces().List(ctx, named(s.secret.Namespace))
	if err != nil {
		return s, fmt.Errorf("list namespace %s: %w", s.secret.Namespace, err)
	}
	accounts, err := c.cfg.Client.ServiceAccounts(s.secret.Namespace).List(ctx, named(s.secret.Account))
	if err != nil {
		return s, fmt.Errorf("list service account %s: %w", s.secret.AccountName(), err)
	}
	s.namespace, s.account = nil, nil
	for i := range namespaces.Items {
		s.namespace = &namespaces.Items[i]
	}
	for i := range accounts.Items {
		s.account = accountOf(s.secret, &accounts.Items[i])
	}
	return s, nil
}

// accountOf returns account, or nil if secret names another UID.
func accountOf(secret *cache.TokenSecret, account *corev1.ServiceAccount) *corev1.ServiceAccount {
	if secret.AccountUID == "" || secret.AccountUID == account.UID {
		return account
	}
	return nil
}

func (c *Controller) gather(secret *cache.TokenSecret, namespace *corev1.Namespace) state {
	s := state{secret: secret, namespace: namespace, tracked: c.pass.tracked, period: c.cfg.Period, now: c.cfg.Clock.Now().UTC()}
	if account, ok := cache.Get(c.cfg.ServiceAccounts, secret.AccountName().String()); ok {
		s.account = accountOf(secret, account)
	}
	return s
}

// listSecrets returns the cached token Secrets of a namespace, sorted by name.
func (c *Controller) listSecrets(namespace string) []*cache.TokenSecret {
	secrets, err := c.cfg.Secrets.GetTypedIndexer().ByTypedIndex(toolscache.NamespaceIndex, namespace)
	if err != nil {
		panic("tokencleaner: internal error: " + err.Error()) // there is no such index
	}
	slices.SortFunc(secrets, func(a, b *cache.TokenSecret) int { return strings.Compare(a.Name, b.Name) })
	return secrets
}

// failures joins the errors of a namespace. It keeps only the first and a count, because
// there may be a thousand.
type failures struct {
	first error
	n     int
}

func (f *failures) add(err error) {
	if err == nil {
		return
	}
	if f.n++; f.n == 1 {
		f.first = err
	}
}

func (f *failures) err() error {
	if f.n > 1 {
		return fmt.Errorf("%w (and %d more secrets of this namespace failed)", f.first, f.n-1)
	}
	return f.first
}
