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
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/internal/workqueue"
	"github.com/sakeeper/sakeeper/pkg/internal/writebackoff"
)

// Name is kube-controller-manager's name of this controller.
const Name = "legacy-serviceaccount-token-cleaner-controller"

// Client is what the controller reads and writes live.
type Client interface {
	typedcorev1.ConfigMapsGetter
	typedcorev1.PodsGetter
	typedcorev1.SecretsGetter
	typedcorev1.ServiceAccountsGetter
}

// Config is what the controller needs; all but DryRun and the last
// three is required.
type Config struct {
	Client          Client
	Namespaces      toolscache.TypedSharedIndexInformer[*corev1.Namespace]
	Secrets         toolscache.TypedSharedIndexInformer[*cache.TokenSecret]
	ServiceAccounts toolscache.TypedSharedIndexInformer[*corev1.ServiceAccount]
	// Period is for how long a token must be unused before it is marked, and marked
	// before it is deleted.
	Period time.Duration
	// Interval is from the beginning of a pass to that of the next.
	Interval time.Duration
	// DryRun: nothing is changed; log, events and metrics say what would be.
	DryRun   bool
	Recorder record.EventRecorder
	Clock    clock.PassiveClock
	// Registerer gets the metrics. Nil: they are not exported.
	Registerer prometheus.Registerer
}

// Controller marks and deletes unused token Secrets.
type Controller struct {
	cfg     Config
	queue   *workqueue.Queue[task]
	metrics *metrics
	truces  *writebackoff.Tracker[contested]
	ready   atomic.Bool
	// pass is touched by the one worker of the loop alone.
	pass *pass
}

// task is a namespace, or one of two that no namespace is called.
type task string

const (
	// begin looks at everything and queues the namespaces in which there is something
	// to do, and then end. The queue hands tasks out in the order in which they came,
	// so end is handled when all of them were tried once.
	begin task = "(begin)"
	end   task = "(end)"
)

// contested is a Secret that somebody may want to stay unmarked.
type contested struct{ namespace, name, uid string }

// New checks cfg. The caller starts the informers.
func New(cfg Config) (*Controller, error) {
	switch {
	case cfg.Client == nil, cfg.Namespaces == nil, cfg.Secrets == nil, cfg.ServiceAccounts == nil, cfg.Recorder == nil, cfg.Clock == nil:
		return nil, fmt.Errorf("%s: Client, Namespaces, Secrets, ServiceAccounts, Recorder and Clock are required", Name)
	case cfg.Period <= 0, cfg.Interval <= 0:
		return nil, fmt.Errorf("%s: Period and Interval must be positive, not %v and %v", Name, cfg.Period, cfg.Interval)
	}
	c := &Controller{cfg: cfg, truces: writebackoff.New[contested]("token marks", cfg.Clock, cfg.Registerer)}
	var err error
	if c.metrics, err = newMetrics(cfg.Registerer); err != nil {
		return nil, err
	}
	c.queue, err = workqueue.New(workqueue.Config[task]{Name: Name, Sync: c.sync, Registerer: cfg.Registerer})
	return c, err
}

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	c.queue.Add(begin)
	return c.queue.Run(ctx, c.cfg.Namespaces.HasSyncedChecker(), c.cfg.Secrets.HasSyncedChecker(), c.cfg.ServiceAccounts.HasSyncedChecker())
}

// Ready tells whether the first pass was completed, also if it found that nothing
// may be done.
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

// cleanUp does what there is to do in a namespace.
func (c *Controller) cleanUp(ctx context.Context, namespace string) error {
	counts := map[verdict]int{}
	var inPods names // nil: not asked for yet
	var failed failures
	for _, secret := range c.secretsOf(namespace) {
		s := c.gather(secret)
		d := decide(s)
		if d.action == look {
			if inPods == nil {
				var err error
				if inPods, err = c.namesInPods(ctx, namespace); err != nil {
					return err
				}
			}
			s.mounts = inPods.mounts(secret.Name)
			d = decide(s)
		}
		counts[d.verdict]++
		failed.add(c.apply(ctx, s, d))
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	c.pass.replace(namespace, counts)
	c.metrics.found(c.pass.total)
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

func (c *Controller) gather(secret *cache.TokenSecret) state {
	s := state{secret: secret, tracked: c.pass.tracked, period: c.cfg.Period, now: c.cfg.Clock.Now().UTC()}
	s.namespace, _ = cache.Get(c.cfg.Namespaces, secret.Namespace)
	account, ok := cache.Get(c.cfg.ServiceAccounts, secret.AccountName().String())
	if ok && (secret.AccountUID == "" || secret.AccountUID == account.UID) {
		s.account = account
	}
	return s
}

// secretsOf are those of a namespace, by name.
func (c *Controller) secretsOf(namespace string) []*cache.TokenSecret {
	secrets, err := c.cfg.Secrets.GetTypedIndexer().ByTypedIndex(toolscache.NamespaceIndex, namespace)
	if err != nil {
		panic("tokencleaner: internal error: " + err.Error()) // there is no such index
	}
	slices.SortFunc(secrets, func(a, b *cache.TokenSecret) int { return strings.Compare(a.Name, b.Name) })
	return secrets
}

// failures are the errors of a namespace, of which there may be a thousand.
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
