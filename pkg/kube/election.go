package kube

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/google/uuid"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	coordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/retry"
	"k8s.io/klog/v2"
)

// ErrLeaseLost is returned by [Election.Run] if the work was ended because the lease was lost, and
// by requests that a [LeaseGuard] refuses.
var ErrLeaseLost = errors.New("leader election: lease lost")

// stuckAfter is the time after the lease was lost, or after it ran out while a request for it
// hangs, from which on [Election.Alive] fails.
const stuckAfter = 20 * time.Second

// ElectionConfig describes a Lease and its timing, as in
// [k8s.io/client-go/tools/leaderelection.LeaderElectionConfig]. All fields but Guard and Watch are required.
type ElectionConfig struct {
	// Client makes the requests for the Lease. Its timeout should be [LeaseTimeout].
	Client                                    coordinationv1.LeasesGetter
	Recorder                                  record.EventRecorder
	Namespace, Name                           string
	LeaseDuration, RenewDeadline, RetryPeriod time.Duration

	// Guard is asked before each request of the work. With it, a lease that cannot be renewed
	// does not end the work: requests are refused until it is renewed, and only another holder
	// ends the work. Default: none, and the context of the work ends with the lease.
	Guard *LeaseGuard

	// Watch lists and watches the Lease while another process holds it, so that this one tries at once
	// when the Lease is given up or has run out. Its client must not have a timeout. If that is refused,
	// the Lease is read every RetryPeriod, as without Watch. Default: none.
	Watch kubernetes.Interface
}

// LeaseTimeout is how long a request for a Lease may take: as in kube-controller-manager, half of
// the renew deadline.
func LeaseTimeout(renewDeadline time.Duration) time.Duration {
	return max(renewDeadline/2, time.Second)
}

// Election runs a function in one of several processes at a time. Its methods may be called
// concurrently.
type Election struct {
	config  ElectionConfig
	lock    resourcelock.Interface
	elector *leaderelection.LeaderElector
	guard   *LeaseGuard
	watch   leaseWatch
	// stopWatch ends the watch of the Lease.
	stopWatch context.CancelFunc
	// lead wraps the argument of Run, and done gets its error.
	lead func(context.Context)
	done chan error
	// lost ends when another process holds the lease, or, without a guard of the caller, when the
	// lease cannot be renewed.
	lost context.Context //nolint:containedctx // a state that ends once, not a request
	lose context.CancelFunc

	mu sync.Mutex
	// again ends the run of the elector, which then begins anew and tries at once; nil before the first.
	again context.CancelFunc
	// acquiring: a write that acquires or renews the lease is under way or has succeeded.
	acquiring bool
	leading   bool      // lead was started
	stopped   bool      // the context of Run ended before that
	lostAt    time.Time // when the lease was lost while lead was running
	answered  time.Time // when the last request for the lease returned
}

// NewElection checks cfg. It makes no request.
func NewElection(cfg ElectionConfig) (*Election, error) {
	host, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("leader election: %w", err)
	}
	e := &Election{config: cfg, guard: cfg.Guard, done: make(chan error, 1)}
	if e.guard == nil {
		e.guard = &LeaseGuard{}
	}
	e.watch.free, e.stopWatch = e.tryAgain, func() {}
	e.lost, e.lose = context.WithCancel(context.Background())
	e.lock = &observedLock{e: e, Interface: &resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Namespace: cfg.Namespace, Name: cfg.Name},
		Client:     cfg.Client,
		LockConfig: resourcelock.ResourceLockConfig{Identity: host + "_" + uuid.NewString(), EventRecorder: cfg.Recorder},
	}}
	// Without ReleaseOnCancel: client-go would release the lease while lead is still running.
	e.elector, err = leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock:          e.lock,
		LeaseDuration: cfg.LeaseDuration,
		RenewDeadline: cfg.RenewDeadline,
		RetryPeriod:   cfg.RetryPeriod,
		Name:          cfg.Name,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(ctx context.Context) { e.lead(ctx) },
			OnStoppedLeading: func() {},
		},
	})
	if err != nil {
		return nil, fmt.Errorf("leader election: %w", err)
	}
	return e, nil
}

// observedLock tells the election what the requests of the elector show about the lease.
type observedLock struct {
	resourcelock.Interface

	e *Election
}

// Get implements [resourcelock.Interface].
func (l *observedLock) Get(ctx context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	found, raw, err := l.Interface.Get(ctx)
	l.e.markAnswered()
	if err == nil && found.HolderIdentity != "" && found.HolderIdentity != l.Identity() && l.e.Leading() {
		klog.FromContext(ctx).Info("Another process holds the lease", "lock", l.Describe(), "holder", found.HolderIdentity)
		l.e.lose()
	}
	if err == nil && !l.e.Leading() && l.e.watch.ranOut(found) {
		// The elector has seen this version later than the watch, and would wait for longer. The
		// resourceVersion protects the update.
		found.HolderIdentity = ""
	}
	return found, raw, err
}

// Create implements [resourcelock.Interface].
func (l *observedLock) Create(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	return l.write(ctx, record, l.Interface.Create)
}

// Update implements [resourcelock.Interface].
func (l *observedLock) Update(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	return l.write(ctx, record, l.Interface.Update)
}

func (l *observedLock) write(ctx context.Context, record resourcelock.LeaderElectionRecord, write func(context.Context, resourcelock.LeaderElectionRecord) error) error {
	sent := time.Now()
	l.e.setAcquiring(true)
	err := write(ctx, record)
	l.e.setAcquiring(err == nil)
	l.e.markAnswered()
	if err == nil && record.HolderIdentity == l.Identity() {
		l.e.guard.renew(sent, l.e.config.LeaseDuration)
	}
	return err
}

// Run waits for the lease, then runs lead until ctx ends, lead returns, or the lease is lost
// ([ErrLeaseLost]): to another process, or, without [ElectionConfig.Guard], because it could not
// be renewed in time. It returns the error of lead. The lease is renewed until lead has returned,
// and released after that. Call it once.
func (e *Election) Run(ctx context.Context, lead func(context.Context) error) error { //nolint:funlen // one sequence, whose parts share its contexts
	holding, stopRenewing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopRenewing()
	defer e.lose() // ends what waits for it
	e.lead = func(held context.Context) {
		// It is called again if the lease was renewed too late, and no other process had taken it.
		switch start, stopped := e.startLeading(); {
		case stopped:
			stopRenewing()
			return
		case !start:
			return
		}
		e.stopWatch()
		e.guard.begin()
		if e.config.Guard == nil {
			defer context.AfterFunc(held, e.lose)()
			if term, err := e.guard.current(); err != nil {
				e.lose()
			} else {
				defer context.AfterFunc(term, e.lose)()
			}
		}
		working, stop := context.WithCancel(holding)
		defer stop()
		defer context.AfterFunc(ctx, stop)()
		defer context.AfterFunc(e.lost, stop)()
		err := lead(working)
		if err == nil && e.lost.Err() != nil && ctx.Err() == nil {
			err = ErrLeaseLost
		}
		e.done <- err
		stopRenewing()
	}
	defer context.AfterFunc(e.lost, func() {
		e.guard.lose()
		e.markLost(time.Now())
		stopRenewing()
	})()
	defer context.AfterFunc(ctx, func() {
		if e.stopWaiting() {
			stopRenewing()
		}
	})()

	defer e.watchLease(holding)()
	for {
		attempt, end := context.WithCancel(holding)
		e.setAgain(end)
		e.elector.Run(attempt)
		end()
		if holding.Err() != nil {
			break
		}
		if !e.hasAcquired() {
			continue // woken up by tryAgain
		}
		if e.config.Guard == nil {
			e.lose() // lead may be on its way: it begins with a context that has ended
			<-holding.Done()
			break
		}
		klog.FromContext(ctx).Info("Could not renew the lease: no request is made until it is renewed", "lock", e.lock.Describe())
	}
	defer e.guard.finish()
	if !e.stopWaiting() {
		err := <-e.done
		e.release(ctx)
		return err
	}
	e.release(ctx) // ctx ended before lead was started, perhaps just after the lease was won
	if ctx.Err() == nil {
		return ErrLeaseLost
	}
	return nil
}

// watchLease follows the Lease until ctx ends or lead is started, if there is a client for it. The result
// ends that, and waits for it.
func (e *Election) watchLease(ctx context.Context) (stop func()) {
	if e.config.Watch == nil {
		return func() {}
	}
	ctx, e.stopWatch = context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := e.watch.run(ctx, e.config.Watch, e.config.Namespace, e.config.Name); err != nil {
			klog.FromContext(ctx).Error(err, "Could not watch the lease, reading it every so often instead", "lock", e.lock.Describe(), "interval", e.config.RetryPeriod)
		}
	}()
	return func() {
		e.stopWatch()
		<-ended
	}
}

// tryAgain makes a standby try to acquire the lease at once. A write that is under way is not
// interrupted: its result would not be known.
func (e *Election) tryAgain() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.again != nil && !e.acquiring && !e.leading {
		e.again()
	}
}

func (e *Election) setAgain(again context.CancelFunc) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.again = again
}

func (e *Election) setAcquiring(acquiring bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.acquiring = acquiring
}

// hasAcquired returns true if the last write of the lease succeeded, or lead was started.
func (e *Election) hasAcquired() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.acquiring || e.leading
}

// release releases the lease if this process holds it. Where another client changes the Lease
// between the two requests, it tries again. If it fails, the lease expires.
func (e *Election) release(ctx context.Context) {
	logger := klog.FromContext(ctx)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), e.config.RenewDeadline)
	defer cancel()
	err := retry.OnError(releaseBackoff(), func(err error) bool { return apierrors.IsConflict(err) && ctx.Err() == nil }, func() error {
		record, _, err := e.lock.Get(ctx)
		if err != nil || record.HolderIdentity != e.lock.Identity() {
			return nil //nolint:nilerr // without an answer, or with another holder, there is nothing to release
		}
		now := metav1.Now()
		err = e.lock.Update(ctx, resourcelock.LeaderElectionRecord{
			LeaseDurationSeconds: 1, AcquireTime: now, RenewTime: now, LeaderTransitions: record.LeaderTransitions,
		})
		if err == nil {
			logger.Info("Released the lease", "lock", e.lock.Describe())
		}
		return err
	})
	if err != nil {
		logger.Error(err, "Could not release the lease", "lock", e.lock.Describe())
	}
}

// releaseBackoff is without growth, as the chance of a conflict is the same each time. The context
// bounds the number of tries.
func releaseBackoff() wait.Backoff {
	return wait.Backoff{Duration: 10 * time.Millisecond, Jitter: 1, Steps: math.MaxInt32}
}

// startLeading returns true if lead is to be started, which it is once, and whether the context of
// Run ended just when the lease was won.
func (e *Election) startLeading() (start, stopped bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	start = !e.stopped && !e.leading
	e.leading = e.leading || start
	return start, e.stopped
}

// stopWaiting returns true if lead was not started, and it is not started from then on.
func (e *Election) stopWaiting() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stopped = !e.leading
	return e.stopped
}

func (e *Election) markAnswered() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.answered = time.Now()
}

func (e *Election) markLost(now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lostAt = now
}

// Leading returns true if this process has become the leader, also after it lost the lease.
func (e *Election) Leading() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.leading
}

// OtherLeader returns true if the Lease was read and another process holds it.
func (e *Election) OtherLeader() bool { return e.elector.GetLeader() != "" && !e.elector.IsLeader() }

// Alive is a liveness check. It returns an error if a request for the lease of this process
// hangs, or if lead is still running long after the lease was lost. That the API server does not
// answer in time is no error: a new process would not do better.
func (e *Election) Alive(*http.Request) error {
	e.mu.Lock()
	leading, lost, answered := e.leading, e.lostAt, e.answered
	e.mu.Unlock()
	if !lost.IsZero() && time.Since(lost) > stuckAfter {
		return fmt.Errorf("%w, but the controllers have not stopped", ErrLeaseLost)
	}
	if since := time.Since(answered); leading && since > e.config.LeaseDuration+stuckAfter {
		return fmt.Errorf("leader election: no request for the lease has returned for %v", since.Round(time.Second))
	}
	return nil
}
