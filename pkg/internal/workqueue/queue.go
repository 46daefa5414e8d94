package workqueue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	toolscache "k8s.io/client-go/tools/cache"
	clientqueue "k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
)

const (
	baseDelay       = 5 * time.Millisecond
	defaultMaxDelay = 5 * time.Minute
)

// ErrRequeueLater is returned by a sync, as it is or wrapped, that could do nothing yet: the
// key has neither succeeded nor failed, and goes on to be tried ever more seldom if it
// had failed before. It is looked at again after the duration that is returned beside it;
// where that is zero, when somebody adds it.
var ErrRequeueLater = errors.New("requeue later")

// Config describes a loop over keys of type K.
type Config[K comparable] struct {
	// Name is used for the queue, the logger and the metrics' label. Required.
	Name string
	// Sync handles one key. An error means "failed, retry with a growing delay"; a
	// positive duration means "done for now, look again then"; see also ErrRequeueLater.
	// Required.
	Sync func(ctx context.Context, key K) (again time.Duration, err error)
	// Workers is how many keys are handled at a time. Zero: one.
	Workers int
	// BaseDelay is that between the first two attempts at a key that fails; it doubles
	// with each. Zero: 5 ms.
	BaseDelay time.Duration
	// MaxDelay caps the delay between two attempts at a key. Zero: 5 minutes.
	MaxDelay time.Duration
	// Registerer gets the metrics, which all queues with one registerer share. Nil: they are
	// not exported.
	Registerer prometheus.Registerer
}

// Loop is a work queue and the workers that serve it. Its methods may be called
// concurrently; Run may be called once.
type Queue[K comparable] struct {
	cfg     Config[K]
	metrics *queueMetrics
	queue   clientqueue.TypedRateLimitingInterface[K]

	mu      sync.Mutex
	failing map[K]bool // by key, whether the failure was reported
	// initial are the keys that were added before the workers started and that have
	// not been handled yet.
	initial   map[K]struct{}
	started   bool
	startedAt time.Time // started
}

// New makes a loop. No key is handled before Run, but keys may already be added.
func New[K comparable](cfg Config[K]) (*Queue[K], error) {
	if cfg.Name == "" || cfg.Sync == nil {
		return nil, errors.New("workqueue: Name and Sync are required")
	}
	cfg.Workers = max(cfg.Workers, 1)
	if cfg.MaxDelay == 0 {
		cfg.MaxDelay = defaultMaxDelay
	}
	m := newMetrics(cfg.Registerer)
	m.begin(cfg.Name)
	limiter := clientqueue.NewTypedItemExponentialFailureRateLimiter[K](cmp.Or(cfg.BaseDelay, baseDelay), cfg.MaxDelay)
	return &Queue[K]{
		cfg: cfg, metrics: m,
		queue: clientqueue.NewTypedRateLimitingQueueWithConfig(limiter,
			clientqueue.TypedRateLimitingQueueConfig[K]{Name: cfg.Name}),
		failing: map[K]bool{},
		initial: map[K]struct{}{},
	}, nil
}

// Add queues key now. A key that is being synced is synced once more afterwards.
func (q *Queue[K]) Add(key K) {
	q.mu.Lock()
	if !q.started {
		q.initial[key] = struct{}{}
	}
	q.mu.Unlock()
	q.queue.Add(key)
}

// AddAfter queues key after d. Of several delays for one key the shortest counts.
func (q *Queue[K]) AddAfter(key K, d time.Duration) { q.queue.AddAfter(key, d) }

// Ready tells whether every key of the initial lists has been handled once.
func (q *Queue[K]) Ready() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.started && len(q.initial) == 0
}

// Completed notes that an object that was created at that time has now got what it was
// to get. One from before the loop started says nothing of how long that takes.
func (q *Queue[K]) Completed(created time.Time) {
	q.mu.Lock()
	since := q.startedAt
	q.mu.Unlock()
	if !since.IsZero() && created.After(since) {
		q.metrics.observeReady(q.cfg.Name, time.Since(created))
	}
}

// Run waits for synced, which must cover every cache that sync reads and every
// handler that adds keys, then serves the queue until ctx ends. It returns nil.
func (q *Queue[K]) Run(ctx context.Context, synced ...toolscache.DoneChecker) error {
	logger := klog.FromContext(ctx).WithName(q.cfg.Name)
	ctx = klog.NewContext(ctx, logger)
	defer q.queue.ShutDown()
	if !toolscache.WaitFor(ctx, "", synced...) {
		return nil
	}
	q.mu.Lock()
	q.started, q.startedAt = true, time.Now()
	q.mu.Unlock()
	logger.Info("Started", "workers", q.cfg.Workers)
	defer logger.Info("Stopped")

	var workers sync.WaitGroup
	for range q.cfg.Workers {
		workers.Go(func() {
			for q.next(ctx) {
			}
		})
	}
	<-ctx.Done()
	q.queue.ShutDown()
	workers.Wait()
	return nil
}

// next handles one key and tells whether there may be more.
func (q *Queue[K]) next(ctx context.Context) bool {
	key, shutdown := q.queue.Get()
	if shutdown {
		return false
	}
	defer q.queue.Done(key)
	if ctx.Err() != nil {
		return false // what is left in the queue is for the next start
	}
	q.handle(ctx, key)
	return true
}

func (q *Queue[K]) handle(ctx context.Context, key K) {
	logger := klog.LoggerWithValues(klog.FromContext(ctx), "key", key)
	ctx = klog.NewContext(ctx, logger)
	ctx = context.WithValue(ctx, reportKey{}, func() bool { return q.firstReport(key) })

	began := time.Now()
	again, err := q.syncRecovering(ctx, key)
	if err != nil && ctx.Err() != nil {
		return // stopped half way: not the key's fault
	}
	if errors.Is(err, ErrRequeueLater) {
		q.markHandled(key)
		if again > 0 {
			q.queue.AddAfter(key, again)
		}
		return
	}
	q.metrics.observe(q.cfg.Name, time.Since(began), err)
	q.recordResult(key, err)
	if err != nil {
		logger.Error(err, "Sync failed, it will be retried", "retries", q.queue.NumRequeues(key))
		q.queue.AddRateLimited(key)
		return
	}
	q.queue.Forget(key)
	if again > 0 {
		q.queue.AddAfter(key, again)
	}
}

// guard turns a panic into an error of the key.
func (q *Queue[K]) syncRecovering(ctx context.Context, key K) (again time.Duration, err error) {
	defer func() {
		if p := recover(); p != nil {
			q.metrics.panicked(q.cfg.Name)
			// The panic's value stays out: it may quote an object.
			err = fmt.Errorf("sync panicked (%T) at\n%s", p, debug.Stack())
		}
	}()
	return q.cfg.Sync(ctx, key)
}

func (q *Queue[K]) markHandled(key K) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.initial, key)
}

// note remembers how key was handled.
func (q *Queue[K]) recordResult(key K, err error) {
	q.markHandled(key)
	q.mu.Lock()
	defer q.mu.Unlock()
	if err == nil {
		delete(q.failing, key)
	} else if _, known := q.failing[key]; !known {
		q.failing[key] = false
	}
	q.metrics.setFailing(q.cfg.Name, len(q.failing))
}

func (q *Queue[K]) firstReport(key K) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	first := !q.failing[key]
	q.failing[key] = true
	return first
}

type reportKey struct{}

// Report tells whether the failure that sync is about to return should be reported
// to people: true once per key, until the key succeeds.
func Report(ctx context.Context) bool {
	report, ok := ctx.Value(reportKey{}).(func() bool)
	return !ok || report()
}
