package kube

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"
	"k8s.io/utils/ptr"
)

// contender is one process of an election over the Lease system/controllers.
type contender struct {
	*Election
	t      *testing.T
	client *fake.Clientset
	broken atomic.Bool // no request succeeds
	taken  atomic.Bool // updates meet a conflict, which the fake does not see by itself
	// led counts the calls of lead, and leading is closed by the first.
	led     atomic.Int32
	leading chan struct{}
	ended   chan error
	stop    context.CancelFunc // set by run
}

func newContender(t *testing.T, objects ...runtime.Object) *contender {
	t.Helper()
	return newGuardedContender(t, nil, objects...)
}

func newGuardedContender(t *testing.T, guard *LeaseGuard, objects ...runtime.Object) *contender {
	t.Helper()
	c := &contender{t: t, client: fake.NewClientset(objects...), leading: make(chan struct{}), ended: make(chan error, 1)}
	c.client.PrependReactor("*", "*", func(clienttesting.Action) (bool, runtime.Object, error) { return c.broken.Load(), nil, errBoom })
	c.client.PrependReactor("update", "leases", func(clienttesting.Action) (bool, runtime.Object, error) {
		return c.taken.Load(), nil, apierrors.NewConflict(coordinationv1.Resource("leases"), "controllers", errBoom)
	})
	var err error
	c.Election, err = NewElection(ElectionConfig{
		Client: c.client.CoordinationV1(), Recorder: record.NewFakeRecorder(100), Namespace: "system", Name: "controllers",
		LeaseDuration: 15 * time.Second, RenewDeadline: 10 * time.Second, RetryPeriod: 2 * time.Second, Guard: guard,
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// run starts the contender; it does work while it leads.
func (c *contender) run(work func(context.Context) error) (stop func()) {
	var ctx context.Context
	ctx, c.stop = context.WithCancel(klog.NewContext(c.t.Context(), ktesting.NewLogger(c.t, ktesting.NewConfig())))
	go func() {
		c.ended <- c.Run(ctx, func(ctx context.Context) error {
			if c.led.Add(1) == 1 {
				close(c.leading)
			}
			return work(ctx)
		})
	}()
	return c.stop
}

func (c *contender) lease() *coordinationv1.Lease {
	c.t.Helper()
	lease, err := c.client.Tracker().Get(coordinationv1.SchemeGroupVersion.WithResource("leases"), "system", "controllers")
	if err != nil {
		c.t.Fatal(err)
	}
	return lease.(*coordinationv1.Lease)
}

func (c *contender) holder() string { return ptr.Deref(c.lease().Spec.HolderIdentity, "") }

// leaseOfAnother is a Lease that another process has just acquired.
func leaseOfAnother() *coordinationv1.Lease {
	now := metav1.NewMicroTime(time.Now())
	return &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: "system", Name: "controllers"},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: new("another"), LeaseDurationSeconds: new(int32(15)), AcquireTime: &now, RenewTime: &now},
	}
}

func untilStopped(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

func TestTheLeaseIsReleasedAfterTheWorkHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const last = time.Minute // far longer than a lease lasts without renewal
		c := newContender(t)
		if c.OtherLeader() || c.Leading() {
			t.Error("there is no leader yet")
		}
		stop := c.run(func(ctx context.Context) error {
			<-ctx.Done()
			time.Sleep(last)
			return nil
		})
		<-c.leading
		if !c.Leading() || c.OtherLeader() || c.holder() == "" {
			t.Errorf("leading %t, observed %t, holder %q", c.Leading(), c.OtherLeader(), c.holder())
		}
		stop()
		time.Sleep(last - 1)
		synctest.Wait()
		if c.holder() == "" || time.Since(c.lease().Spec.RenewTime.Time) > 3*time.Second {
			t.Errorf("the work is not done, and the lease is held by %q, renewed %v ago", c.holder(), time.Since(c.lease().Spec.RenewTime.Time))
		}
		time.Sleep(time.Nanosecond)
		if err := <-c.ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		if c.holder() != "" {
			t.Errorf("the lease is held by %q", c.holder())
		}
	})
}

func TestAnErrorOfTheWorkEndsTheElection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newContender(t)
		defer c.run(func(context.Context) error { return errBoom })()
		if err := <-c.ended; !errors.Is(err, errBoom) {
			t.Errorf("Run: %v", err)
		}
		if c.holder() != "" {
			t.Errorf("the lease is held by %q", c.holder())
		}
	})
}

func TestALeaderThatCannotRenewStopsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newContender(t)
		var stopped time.Time
		defer c.run(func(ctx context.Context) error {
			<-ctx.Done()
			stopped = time.Now()
			return nil
		})()
		<-c.leading
		time.Sleep(time.Minute)
		c.broken.Store(true)
		if err := <-c.ended; !errors.Is(err, ErrLeaseLost) {
			t.Errorf("Run: %v", err)
		}
		if left := 15*time.Second - stopped.Sub(c.lease().Spec.RenewTime.Time); left <= 0 {
			t.Errorf("worked on for %v after others may take the lease", -left)
		}
	})
}

// take gives the Lease to another process.
func (c *contender) take() {
	c.t.Helper()
	c.taken.Store(true)
	if err := c.client.Tracker().Update(coordinationv1.SchemeGroupVersion.WithResource("leases"), leaseOfAnother(), "system"); err != nil {
		c.t.Fatal(err)
	}
}

// TestAReleaseThatMeetsConflicts: another client changes the Lease between the requests of the
// release, which the next process would pay for by waiting for the Lease to expire.
func TestAReleaseThatMeetsConflicts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newContender(t)
		conflicts := 0
		c.client.PrependReactor("update", "leases", func(action clienttesting.Action) (bool, runtime.Object, error) {
			lease := action.(clienttesting.UpdateAction).GetObject().(*coordinationv1.Lease)
			if ptr.Deref(lease.Spec.HolderIdentity, "") == "" && conflicts < 20 {
				conflicts++
				return true, nil, apierrors.NewConflict(coordinationv1.Resource("leases"), "controllers", errBoom)
			}
			return false, nil, nil
		})
		stop := c.run(untilStopped)
		<-c.leading
		began := time.Now()
		stop()
		if err := <-c.ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		if took := time.Since(began); c.holder() != "" || conflicts != 20 || took > time.Second {
			t.Errorf("after %v and %d conflicts, the lease is held by %q", took, conflicts, c.holder())
		}
	})
}

// TestALeaderThatSeesAnotherHolder was frozen, and has lost the lease meanwhile.
func TestALeaderThatSeesAnotherHolder(t *testing.T) {
	for name, guard := range map[string]*LeaseGuard{"with a guard": {}, "without a guard": nil} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newGuardedContender(t, guard)
				defer c.run(untilStopped)()
				<-c.leading
				time.Sleep(time.Minute + time.Second) // between two renewals
				c.take()
				began := time.Now()
				if err := <-c.ended; !errors.Is(err, ErrLeaseLost) {
					t.Errorf("Run: %v", err)
				}
				if took := time.Since(began); took > 3*time.Second { // the next renewal is within 2 s
					t.Errorf("the work went on for %v", took)
				}
				if c.holder() != "another" {
					t.Errorf("the lease is held by %q", c.holder())
				}
			})
		})
	}
}

// TestAnOutageLongerThanTheLease does not end the work of a guarded leader. Its requests are
// refused before another process may take the lease, until the lease is renewed.
func TestAnOutageLongerThanTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		guard := &LeaseGuard{}
		c := newGuardedContender(t, guard)
		stop := c.run(untilStopped)
		<-c.leading
		time.Sleep(time.Minute + time.Second) // between two renewals
		c.broken.Store(true)
		renewed := c.lease().Spec.RenewTime.Time
		time.Sleep(10 * time.Second)
		if err := guard.Err(); err != nil {
			t.Errorf("while the lease is valid: %v", err)
		}
		time.Sleep(time.Until(renewed.Add(15*time.Second + 100*time.Millisecond))) // the request was sent a moment after that
		synctest.Wait()
		for range 60 {
			if err := guard.Err(); !errors.Is(err, ErrLeaseLost) {
				t.Fatalf("%v after the last renewal: %v", time.Since(renewed), err)
			}
			if err := c.Alive(nil); err != nil {
				t.Fatalf("%v after the last renewal: %v", time.Since(renewed), err)
			}
			time.Sleep(time.Second)
		}
		c.broken.Store(false)
		time.Sleep(5 * time.Second) // client-go tries every 2 to 4.4 s
		if err := guard.Err(); err != nil {
			t.Errorf("after the outage: %v", err)
		}
		if c.led.Load() != 1 {
			t.Errorf("the work was started %d times", c.led.Load())
		}
		stop()
		if err := <-c.ended; err != nil || c.holder() != "" {
			t.Errorf("Run: %v, and the lease is held by %q", err, c.holder())
		}
	})
}

// TestAnotherTakesTheLeaseInAnOutage: the work ends as soon as that is seen.
func TestAnotherTakesTheLeaseInAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newGuardedContender(t, &LeaseGuard{})
		defer c.run(untilStopped)()
		<-c.leading
		c.broken.Store(true)
		time.Sleep(time.Minute)
		c.take()
		c.broken.Store(false)
		began := time.Now()
		if err := <-c.ended; !errors.Is(err, ErrLeaseLost) {
			t.Errorf("Run: %v", err)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("the work went on for %v", took)
		}
	})
}

// TestSlowLeaseRequests take 3 s each, which is less than their timeout.
func TestSlowLeaseRequests(t *testing.T) {
	if got := LeaseTimeout(10 * time.Second); got != 5*time.Second {
		t.Errorf("the timeout is %v, and kube-controller-manager's is 5s", got)
	}
	synctest.Test(t, func(t *testing.T) {
		guard := &LeaseGuard{}
		c := newGuardedContender(t, guard)
		c.client.PrependReactor("*", "leases", func(clienttesting.Action) (bool, runtime.Object, error) {
			time.Sleep(3 * time.Second)
			return false, nil, nil
		})
		stop := c.run(untilStopped)
		<-c.leading
		for range 120 {
			time.Sleep(time.Second)
			if err := guard.Err(); err != nil {
				t.Fatal(err)
			}
		}
		stop()
		if err := <-c.ended; err != nil || c.holder() != "" {
			t.Errorf("Run: %v, and the lease is held by %q", err, c.holder())
		}
	})
}

// TestAStopWhileTheLeaseIsAcquired ends ctx while the request that acquires the lease is running.
func TestAStopWhileTheLeaseIsAcquired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newContender(t)
		c.client.PrependReactor("create", "leases", func(clienttesting.Action) (bool, runtime.Object, error) {
			c.stop()
			time.Sleep(time.Millisecond)
			return false, nil, nil
		})
		c.run(func(ctx context.Context) error {
			<-ctx.Done()
			time.Sleep(time.Second)
			if c.holder() == "" {
				t.Error("the lease was released before the work had ended")
			}
			return nil
		})
		if err := <-c.ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		if c.holder() != "" {
			t.Errorf("the lease is held by %q", c.holder())
		}
	})
}

func TestABriefOutageIsNoReasonToStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newContender(t)
		stop := c.run(untilStopped)
		<-c.leading
		c.broken.Store(true)
		time.Sleep(5 * time.Second)
		c.broken.Store(false)
		time.Sleep(time.Minute)
		stop()
		if err := <-c.ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestAStandby(t *testing.T) {
	t.Run("stops without leading", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := newContender(t, leaseOfAnother())
			stop := c.run(untilStopped)
			time.Sleep(10 * time.Second)
			if !c.OtherLeader() || c.Leading() {
				t.Errorf("observed %t, leading %t", c.OtherLeader(), c.Leading())
			}
			stop()
			if err := <-c.ended; err != nil || c.led.Load() != 0 {
				t.Errorf("Run: %v, led %d times", err, c.led.Load())
			}
			if c.holder() != "another" {
				t.Errorf("the lease is held by %q", c.holder())
			}
		})
	})
	t.Run("takes over when the leader does not renew", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			c := newContender(t, leaseOfAnother())
			stop := c.run(untilStopped)
			<-c.leading
			if took := time.Since(began); took < 15*time.Second || took > 20*time.Second {
				t.Errorf("took over after %v", took)
			}
			stop()
			if err := <-c.ended; err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	})
	t.Run("waits while the API server cannot be reached", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := newContender(t)
			c.broken.Store(true)
			stop := c.run(untilStopped)
			time.Sleep(time.Hour)
			if c.OtherLeader() || c.Leading() {
				t.Errorf("observed %t, leading %t", c.OtherLeader(), c.Leading())
			}
			c.broken.Store(false)
			<-c.leading
			stop()
			if err := <-c.ended; err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	})
}

// TestAlive: if the work does not stop when the lease is lost, the liveness probe must fail, so
// that kubelet kills the process.
func TestAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newContender(t)
		if err := c.Alive(nil); err != nil {
			t.Errorf("before the election: %v", err)
		}
		unstick := make(chan struct{})
		defer c.run(func(context.Context) error {
			<-unstick
			return nil
		})()
		<-c.leading
		time.Sleep(time.Minute)
		if err := c.Alive(nil); err != nil {
			t.Errorf("while it leads: %v", err)
		}
		c.broken.Store(true)
		time.Sleep(30 * time.Second)
		if err := c.Alive(nil); err != nil {
			t.Errorf("shortly after the lease was lost: %v", err)
		}
		time.Sleep(time.Minute)
		if err := c.Alive(nil); err == nil {
			t.Error("the lease was lost long ago, the work goes on, and the process counts as alive")
		}
		close(unstick)
		if err := <-c.ended; !errors.Is(err, ErrLeaseLost) {
			t.Errorf("Run: %v", err)
		}
	})
}

// TestAliveWhileARenewalHangs has a client that never returns, so that the loss of the lease is
// not noticed.
func TestAliveWhileARenewalHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newContender(t)
		hang := make(chan struct{})
		c.client.PrependReactor("update", "leases", func(clienttesting.Action) (bool, runtime.Object, error) {
			<-hang
			return false, nil, nil
		})
		stop := c.run(untilStopped)
		<-c.leading
		time.Sleep(30 * time.Second)
		if err := c.Alive(nil); err != nil {
			t.Errorf("shortly after the lease ran out: %v", err)
		}
		time.Sleep(30 * time.Second)
		if err := c.Alive(nil); err == nil {
			t.Error("the lease ran out long ago, and the process counts as alive")
		}
		close(hang)
		defer stop()
		if err := <-c.ended; !errors.Is(err, ErrLeaseLost) { // the work ended with the lease
			t.Errorf("Run: %v", err)
		}
	})
}

func TestNewElectionChecksItsConfig(t *testing.T) {
	_, err := NewElection(ElectionConfig{
		Client: (&fake.Clientset{}).CoordinationV1(), Recorder: record.NewFakeRecorder(1), Namespace: "system", Name: "controllers",
		LeaseDuration: time.Second, RenewDeadline: time.Second, RetryPeriod: time.Second,
	})
	if err == nil {
		t.Error("no error")
	}
}
