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

// ErrLeaseLost ends a process that led and could not renew its lease in time.
var ErrLeaseLost = errors.New("leader election: lease lost")

// stuckAfter is how long after the lease was lost the process counts as dead.
const stuckAfter = 20 * time.Second

// releaseTimeout bounds how long a process that stops tries to release the lease.
const releaseTimeout = 5 * time.Second

// ElectionConfig describes a Lease; all fields are required.
type ElectionConfig struct {
	Client                                    coordinationv1.LeasesGetter
	Recorder                                  record.EventRecorder
	Namespace, Name                           string
	LeaseDuration, RenewDeadline, RetryPeriod time.Duration
}

// Election runs work in one process of many at a time.
type Election struct {
	lock     resourcelock.Interface
	elector  *leaderelection.LeaderElector
	watchdog *leaderelection.HealthzAdaptor
	// lead is what Run was given, and done what came of it.
	lead func(context.Context)
	done chan error

	mu      sync.Mutex
	leading bool      // lead was begun
	stopped bool      // Run was told to stop before that
	lostAt  time.Time // the lease is gone and lead goes on
}

// NewElection checks cfg; it asks the API server nothing yet.
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
	// Without ReleaseOnCancel: it gives the lease up, or tries to for long, while
	// the work still goes on.
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

// Run waits for the lease, then runs lead until ctx ends, lead returns, or the
// lease is lost ([ErrLeaseLost]). It goes on renewing until lead has returned, and
// only then gives the lease up. When the lease cannot be renewed, lead's context
// ends after the renew deadline, before others may take the lease. Call it once.
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
	e.release(ctx) // stopped while waiting, or in the moment of winning
	return nil
}

// release gives the lease up if it is ours. Where that fails, it runs out.
func (e *Election) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	record, _, err := e.lock.Get(ctx)
	if err != nil || record.HolderIdentity != e.lock.Identity() {
		return // nothing to give up, or nobody to give it to
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

// begin tells whether lead may begin: not when Run was told to stop in the moment
// in which the lease was won.
func (e *Election) startLeading() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.leading = !e.stopped
	return e.leading
}

// stopWaiting tells whether lead has not begun, and sees to it that it never does.
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

// Leading tells whether this process has become the leader.
func (e *Election) Leading() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.leading
}

// Observed tells whether another process is known to lead, which takes an answer
// of the API server.
func (e *Election) OtherLeader() bool { return e.elector.GetLeader() != "" && !e.elector.IsLeader() }

// Alive fails when this process leads on paper but has not renewed for long, or
// goes on working long after it lost the lease.
func (e *Election) Alive(r *http.Request) error {
	e.mu.Lock()
	lost := e.lostAt
	e.mu.Unlock()
	if !lost.IsZero() && time.Since(lost) > stuckAfter {
		return fmt.Errorf("%w, and the work does not stop", ErrLeaseLost)
	}
	return e.watchdog.Check(r)
}
