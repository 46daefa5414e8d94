package kube

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/google/uuid"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
)

// ErrLeaseLost is returned by [Election.Run] if the leader could not renew its lease in time.
var ErrLeaseLost = errors.New("leader election: lease lost")

// stuckAfter is the time after the lease was lost from which on [Election.Alive] fails.
const stuckAfter = 20 * time.Second

// releaseTimeout bounds the release of the lease at the end.
const releaseTimeout = 5 * time.Second

// ElectionConfig describes a Lease and its timing, as in
// [k8s.io/client-go/tools/leaderelection.LeaderElectionConfig]. All fields are required.
type ElectionConfig struct {
	Client                                    coordinationv1.LeasesGetter
	Recorder                                  record.EventRecorder
	Namespace, Name                           string
	LeaseDuration, RenewDeadline, RetryPeriod time.Duration
}

// Election runs a function in one of several processes at a time. Its methods may be called
// concurrently.
type Election struct {
	lock     resourcelock.Interface
	elector  *leaderelection.LeaderElector
	watchdog *leaderelection.HealthzAdaptor
	// lead wraps the argument of Run, and done gets its error.
	lead func(context.Context)
	done chan error

	mu      sync.Mutex
	leading bool      // lead was started
	stopped bool      // the context of Run ended before that
	lostAt  time.Time // when the lease was lost while lead was running
}

// NewElection checks cfg. It makes no request.
func NewElection(cfg ElectionConfig) (*Election, error) {
	host, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("leader election: %w", err)
	}
	e := &Election{
		lock: &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Namespace: cfg.Namespace, Name: cfg.Name},
			Client:     cfg.Client,
			LockConfig: resourcelock.ResourceLockConfig{Identity: host + "_" + uuid.NewString(), EventRecorder: cfg.Recorder},
		},
		watchdog: leaderelection.NewLeaderHealthzAdaptor(stuckAfter),
		done:     make(chan error, 1),
	}
	// Without ReleaseOnCancel: client-go would release the lease while lead is still running.
	e.elector, err = leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock:          e.lock,
		LeaseDuration: cfg.LeaseDuration,
		RenewDeadline: cfg.RenewDeadline,
		RetryPeriod:   cfg.RetryPeriod,
		WatchDog:      e.watchdog,
		Name:          cfg.Name,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(ctx context.Context) { e.lead(ctx) },
			OnStoppedLeading: func() {},
		},
	})
	if err != nil {
		return nil, fmt.Errorf("leader election: %w", err)
	}
	e.watchdog.SetLeaderElection(e.elector)
	return e, nil
}

// Run waits for the lease, then runs lead until ctx ends, lead returns, or the lease is lost
// ([ErrLeaseLost]). It returns the error of lead. The lease is renewed until lead has
// returned, and released after that. If it cannot be renewed, the context of lead ends after
// the renew deadline, before another process can take the lease. Call it once.
func (e *Election) Run(ctx context.Context, lead func(context.Context) error) error {
	holding, stopRenewing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopRenewing()
	e.lead = func(held context.Context) {
		if e.startLeading() {
			working, stop := context.WithCancel(held)
			defer stop()
			defer context.AfterFunc(ctx, stop)()
			err := lead(working)
			if err == nil && held.Err() != nil && ctx.Err() == nil {
				err = ErrLeaseLost
			}
			e.done <- err
		}
		stopRenewing()
	}
	defer context.AfterFunc(ctx, func() {
		if e.stopWaiting() {
			stopRenewing()
		}
	})()

	e.elector.Run(holding)
	if e.Leading() {
		e.markLost(time.Now())
		err := <-e.done
		e.release(ctx)
		return err
	}
	e.release(ctx) // ctx ended before lead was started, perhaps just after the lease was won
	return nil
}

// release releases the lease if this process holds it. If that fails, the lease expires.
func (e *Election) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	record, _, err := e.lock.Get(ctx)
	if err != nil || record.HolderIdentity != e.lock.Identity() {
		return
	}
	now := metav1.Now()
	err = e.lock.Update(ctx, resourcelock.LeaderElectionRecord{
		LeaseDurationSeconds: 1, AcquireTime: now, RenewTime: now, LeaderTransitions: record.LeaderTransitions,
	})
	if err != nil {
		klog.FromContext(ctx).Error(err, "Could not release the lease", "lock", e.lock.Describe())
		return
	}
	klog.FromContext(ctx).Info("Released the lease", "lock", e.lock.Describe())
}

// startLeading returns true if lead may start: false if the context of Run ended just when
// the lease was won.
func (e *Election) startLeading() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.leading = !e.stopped
	return e.leading
}

// stopWaiting returns true if lead was not started; startLeading returns false from then on.
func (e *Election) stopWaiting() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stopped = !e.leading
	return e.stopped
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

// Alive is a liveness check. It returns an error if this process holds the lease but has not
// renewed it in time, or if lead is still running long after the lease was lost.
func (e *Election) Alive(r *http.Request) error {
	e.mu.Lock()
	lost := e.lostAt
	e.mu.Unlock()
	if !lost.IsZero() && time.Since(lost) > stuckAfter {
		return fmt.Errorf("%w, but the controllers have not stopped", ErrLeaseLost)
	}
	return e.watchdog.Check(r)
}
