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

// ErrRequeueLater is returned, also wrapped, by a sync that could do nothing yet: the key
// has neither succeeded nor failed, and keeps the retry delay that it had. The queue syncs
// it again after the duration that sync returns beside the error; if that is zero, when
// the key is added again.
var ErrRequeueLater = errors.New("requeue later")

// Config describes a queue of keys of type K.
type Config[K comparable] struct {
	// Name is used for the queue, the logger and the metrics' label. Required.
	Name string
	// Sync handles one key. If it returns an error, the key is retried with a growing delay;
	// if it returns a positive requeueAfter, the key is synced again after that time. See
	// also ErrRequeueLater. Required.
	Sync func(ctx context.Context, key K) (requeueAfter time.Duration, err error)
	// Workers is the number of keys that are synced at a time. Zero: one.
	Workers int
	// BaseDelay is the delay before the first retry of a key; it doubles with each retry.
	// Zero: 5 ms.
	BaseDelay time.Duration
	// MaxDelay caps the delay between two retries of a key. Zero: 5 minutes.
	MaxDelay time.Duration
	// Registerer gets the metrics; all queues with the same one share them. Nil: no metrics
	// are exported.
	Registerer prometheus.Registerer
}

// Queue is a work queue and its workers. Its methods may be called concurrently; Run may be
// called once.
type Queue[K comparable] struct {
	cfg     Config[K]
	metrics *queueMetrics
	queue   clientqueue.TypedRateLimitingInterface[K]

	mu      sync.Mutex
	failing map[K]bool // the value is true if the failure was reported
	// initial has the keys that were added before the workers started and were not handled
	// yet.
	initial   map[K]struct{}
	started   bool
	startedAt time.Time // started
}

// New returns a queue, or an error if a required field is missing. Keys may be added before
// Run.
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

// Add queues key. A key that a worker is syncing is synced once more afterwards.
func (q *Queue[K]) Add(key K) {
	q.mu.Lock()
	if !q.started {
		q.initial[key] = struct{}{}
	}
	q.mu.Unlock()
	q.queue.Add(key)
}

// AddAfter queues key after d. If a key has several delays, the shortest counts. Without a
// delay it is Add.
func (q *Queue[K]) AddAfter(key K, d time.Duration) {
	if d <= 0 {
		q.Add(key)
		return
	}
	q.queue.AddAfter(key, d)
}

// Ready returns true if every key that was added before Run started its workers was handled
// once, whether it succeeded or failed.
func (q *Queue[K]) Ready() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.started && len(q.initial) == 0
}

// Completed observes the time since an object was created, in
// sakeeper_creation_to_ready_seconds: the controller has just finished its work on the
// object. Objects from before Run are ignored.
func (q *Queue[K]) Completed(created time.Time) {
	q.mu.Lock()
	since := q.startedAt
	q.mu.Unlock()
	if !since.IsZero() && created.After(since) {
		q.metrics.observeReady(q.cfg.Name, time.Since(created))
	}
}

// Run waits for synced, then syncs keys until ctx ends and the last worker has returned. It
// returns nil. Synced must cover every cache that Sync reads and every handler that adds
// keys.
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

// next handles one key. It returns false when the queue is shut down.
func (q *Queue[K]) next(ctx context.Context) bool {
	key, shutdown := q.queue.Get()
	if shutdown {
		return false
	}
	defer q.queue.Done(key)
	if ctx.Err() != nil {
		return false
	}
	q.handle(ctx, key)
	return true
}

func (q *Queue[K]) handle(ctx context.Context, key K) {
	logger := klog.LoggerWithValues(klog.FromContext(ctx), "key", key)
	ctx = klog.NewContext(ctx, logger)
	ctx = context.WithValue(ctx, reportKey{}, func() bool { return q.firstReport(key) })

	began := time.Now()
	requeueAfter, err := q.syncRecovering(ctx, key)
	if err != nil && ctx.Err() != nil {
		return // the sync was interrupted by the shutdown
	}
	if errors.Is(err, ErrRequeueLater) {
		q.markHandled(key)
		if requeueAfter > 0 {
			q.queue.AddAfter(key, requeueAfter)
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
	if requeueAfter > 0 {
		q.queue.AddAfter(key, requeueAfter)
	}
}

// syncRecovering calls Sync and turns a panic into an error of the key.
func (q *Queue[K]) syncRecovering(ctx context.Context, key K) (requeueAfter time.Duration, err error) {
	defer func() {
		if p := recover(); p != nil {
			q.metrics.panicked(q.cfg.Name)
			// Without the value of the panic, which may hold parts of an object.
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

// Report returns true if an event should be recorded for the failure that sync is about to
// return: once per key, until the key succeeds. Ctx is that of the sync.
func Report(ctx context.Context) bool {
	report, ok := ctx.Value(reportKey{}).(func() bool)
	return !ok || report()
}
