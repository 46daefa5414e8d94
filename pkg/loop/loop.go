package loop

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
)

const (
	baseDelay       = 5 * time.Millisecond
	defaultMaxDelay = 5 * time.Minute
)

// ErrPutOff is returned by a sync, as it is or wrapped, that could do nothing yet: the
// key has neither succeeded nor failed, and goes on to be tried ever more seldom if it
// had failed before. It is looked at again after the duration that is returned beside it;
// where that is zero, when somebody adds it.
var ErrPutOff = errors.New("put off")

// Config describes a loop over keys of type K.
type Config[K comparable] struct {
	// Name is used for the queue, the logger and the metrics' label. Required.
	Name string
	// Sync handles one key. An error means "failed, retry with a growing delay"; a
	// positive duration means "done for now, look again then"; see also ErrPutOff.
	// Required.
	Sync func(ctx context.Context, key K) (again time.Duration, err error)
	// Workers is how many keys are handled at a time. Zero: one.
	Workers int
	// BaseDelay is that between the first two attempts at a key that fails; it doubles
	// with each. Zero: 5 ms.
	BaseDelay time.Duration
	// MaxDelay caps the delay between two attempts at a key. Zero: 5 minutes.
	MaxDelay time.Duration
	// Metrics may be nil.
	Metrics *Metrics
}

// Loop is a work queue and the workers that serve it. Its methods may be called
// concurrently; Run may be called once.
type Loop[K comparable] struct {
	cfg   Config[K]
	queue workqueue.TypedRateLimitingInterface[K]

	mu      sync.Mutex
	failing map[K]bool // by key, whether the failure was reported
	// initial are the keys that were added before the workers started and that have
	// not been handled yet.
	initial map[K]struct{}
	started bool
	since   time.Time // started
}

// New makes a loop. No key is handled before Run, but keys may already be added.
func New[K comparable](cfg Config[K]) (*Loop[K], error) {
	if cfg.Name == "" || cfg.Sync == nil {
		return nil, errors.New("loop: Name and Sync are required")
	}
	cfg.Workers = max(cfg.Workers, 1)
	if cfg.MaxDelay == 0 {
		cfg.MaxDelay = defaultMaxDelay
	}
	cfg.Metrics.begin(cfg.Name)
	limiter := workqueue.NewTypedItemExponentialFailureRateLimiter[K](cmp.Or(cfg.BaseDelay, baseDelay), cfg.MaxDelay)
	return &Loop[K]{
		cfg: cfg,
		queue: workqueue.NewTypedRateLimitingQueueWithConfig(limiter,
			workqueue.TypedRateLimitingQueueConfig[K]{Name: cfg.Name}),
		failing: map[K]bool{},
		initial: map[K]struct{}{},
	}, nil
}

// Add queues key now. A key that is being synced is synced once more afterwards.
func (l *Loop[K]) Add(key K) {
	l.mu.Lock()
	if !l.started {
		l.initial[key] = struct{}{}
	}
	l.mu.Unlock()
	l.queue.Add(key)
}

// AddAfter queues key after d. Of several delays for one key the shortest counts.
func (l *Loop[K]) AddAfter(key K, d time.Duration) { l.queue.AddAfter(key, d) }

// Ready tells whether every key of the initial lists has been handled once.
func (l *Loop[K]) Ready() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.started && len(l.initial) == 0
}

// Completed notes that an object that was created at that time has now got what it was
// to get. One from before the loop started says nothing of how long that takes.
func (l *Loop[K]) Completed(created time.Time) {
	l.mu.Lock()
	since := l.since
	l.mu.Unlock()
	if !since.IsZero() && created.After(since) {
		l.cfg.Metrics.observeReady(l.cfg.Name, time.Since(created))
	}
}

// Run waits for synced, which must cover every cache that sync reads and every
// handler that adds keys, then serves the queue until ctx ends. It returns nil.
func (l *Loop[K]) Run(ctx context.Context, synced ...cache.DoneChecker) error {
	logger := klog.FromContext(ctx).WithName(l.cfg.Name)
	ctx = klog.NewContext(ctx, logger)
	defer l.queue.ShutDown()
	if !cache.WaitFor(ctx, "", synced...) {
		return nil
	}
	l.mu.Lock()
	l.started, l.since = true, time.Now()
	l.mu.Unlock()
	logger.Info("Started", "workers", l.cfg.Workers)
	defer logger.Info("Stopped")

	var workers sync.WaitGroup
	for range l.cfg.Workers {
		workers.Go(func() {
			for l.next(ctx) {
			}
		})
	}
	<-ctx.Done()
	l.queue.ShutDown()
	workers.Wait()
	return nil
}

// next handles one key and tells whether there may be more.
func (l *Loop[K]) next(ctx context.Context) bool {
	key, shutdown := l.queue.Get()
	if shutdown {
		return false
	}
	defer l.queue.Done(key)
	if ctx.Err() != nil {
		return false // what is left in the queue is for the next start
	}
	l.handle(ctx, key)
	return true
}

func (l *Loop[K]) handle(ctx context.Context, key K) {
	logger := klog.LoggerWithValues(klog.FromContext(ctx), "key", key)
	ctx = klog.NewContext(ctx, logger)
	ctx = context.WithValue(ctx, reportKey{}, func() bool { return l.report(key) })

	began := time.Now()
	again, err := l.guard(ctx, key)
	if err != nil && ctx.Err() != nil {
		return // stopped half way: not the key's fault
	}
	if errors.Is(err, ErrPutOff) {
		l.handled(key)
		if again > 0 {
			l.queue.AddAfter(key, again)
		}
		return
	}
	l.cfg.Metrics.observe(l.cfg.Name, time.Since(began), err)
	l.note(key, err)
	if err != nil {
		logger.Error(err, "Sync failed, it will be retried", "retries", l.queue.NumRequeues(key))
		l.queue.AddRateLimited(key)
		return
	}
	l.queue.Forget(key)
	if again > 0 {
		l.queue.AddAfter(key, again)
	}
}

// guard turns a panic into an error of the key.
func (l *Loop[K]) guard(ctx context.Context, key K) (again time.Duration, err error) {
	defer func() {
		if p := recover(); p != nil {
			l.cfg.Metrics.panicked(l.cfg.Name)
			// The panic's value stays out: it may quote an object.
			err = fmt.Errorf("sync panicked (%T) at\n%s", p, debug.Stack())
		}
	}()
	return l.cfg.Sync(ctx, key)
}

func (l *Loop[K]) handled(key K) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.initial, key)
}

// note remembers how key was handled.
func (l *Loop[K]) note(key K, err error) {
	l.handled(key)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		delete(l.failing, key)
	} else if _, known := l.failing[key]; !known {
		l.failing[key] = false
	}
	l.cfg.Metrics.setFailing(l.cfg.Name, len(l.failing))
}

func (l *Loop[K]) report(key K) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	first := !l.failing[key]
	l.failing[key] = true
	return first
}

type reportKey struct{}

// Report tells whether the failure that sync is about to return should be reported
// to people: true once per key, until the key succeeds.
func Report(ctx context.Context) bool {
	report, ok := ctx.Value(reportKey{}).(func() bool)
	return !ok || report()
}
