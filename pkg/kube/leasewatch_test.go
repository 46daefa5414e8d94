package kube

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	clienttesting "k8s.io/client-go/testing"
)

// newStandby is a contender that watches the Lease of another process, which renews it every two
// seconds until the function is called that it returns.
func newStandby(t *testing.T) (c *contender, renewals func()) {
	t.Helper()
	c = newContender(t, leaseOfAnother())
	c.config.Watch = c.client
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(2 * time.Second):
				c.change(func(lease *coordinationv1.Lease) { lease.Spec.RenewTime = new(metav1.NowMicro()) })
			}
		}
	}()
	return c, func() {
		cancel()
		<-ended
	}
}

// change writes the Lease as another process does.
func (c *contender) change(change func(*coordinationv1.Lease)) {
	lease := c.lease().DeepCopy()
	change(lease)
	if err := c.client.Tracker().Update(coordinationv1.SchemeGroupVersion.WithResource("leases"), lease, "system"); err != nil {
		c.t.Error(err)
	}
}

func (c *contender) end(stop func()) {
	c.t.Helper()
	stop()
	if err := <-c.ended; err != nil || c.led.Load() != 1 {
		c.t.Errorf("Run: %v, led %d times", err, c.led.Load())
	}
}

func TestAStandbyThatWatches(t *testing.T) {
	// 16 s and a bit: between two turns of a standby that only reads the Lease.
	const before = 16*time.Second + 100*time.Millisecond
	for name, free := range map[string]func(c *contender){
		"takes over at once when the lease is given up": func(c *contender) {
			c.change(func(lease *coordinationv1.Lease) { lease.Spec.HolderIdentity = new("") })
		},
		"or deleted": func(c *contender) {
			if err := c.client.Tracker().Delete(coordinationv1.SchemeGroupVersion.WithResource("leases"), "system", "controllers"); err != nil {
				c.t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, stopRenewals := newStandby(t)
				stop := c.run(untilStopped)
				time.Sleep(before)
				stopRenewals()
				if c.Leading() || !c.OtherLeader() {
					t.Errorf("leading %t, observed %t", c.Leading(), c.OtherLeader())
				}
				began := time.Now()
				free(c)
				<-c.leading
				if took := time.Since(began); took > 0 {
					t.Errorf("took over after %v", took)
				}
				c.end(stop)
			})
		})
	}
	t.Run("takes over when the lease runs out", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, stopRenewals := newStandby(t)
			stop := c.run(untilStopped)
			time.Sleep(before)
			stopRenewals()
			renewed := c.lease().Spec.RenewTime.Time
			<-c.leading
			if took := time.Since(renewed); took != 15*time.Second {
				t.Errorf("took over %v after the last renewal", took)
			}
			c.end(stop)
		})
	})
	t.Run("reads the lease if the watch is refused", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, stopRenewals := newStandby(t)
			refused := apierrors.NewForbidden(coordinationv1.Resource("leases"), "controllers", errBoom)
			c.client.PrependReactor("list", "leases", func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, refused })
			c.client.PrependWatchReactor("leases", func(clienttesting.Action) (bool, watch.Interface, error) { return true, nil, refused })
			stop := c.run(untilStopped)
			time.Sleep(before)
			stopRenewals()
			c.change(func(lease *coordinationv1.Lease) { lease.Spec.HolderIdentity = new("") })
			began := time.Now()
			<-c.leading
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("took over after %v", took)
			}
			c.end(stop)
		})
	})
	t.Run("stops watching when it leads", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := newContender(t)
			c.config.Watch = c.client
			stop := c.run(untilStopped)
			<-c.leading
			synctest.Wait()
			c.client.ClearActions()
			time.Sleep(time.Hour)
			for _, action := range c.client.Actions() {
				if action.GetVerb() == "list" || action.GetVerb() == "watch" {
					t.Errorf("%s while it leads", action.GetVerb())
				}
			}
			c.end(stop)
		})
	})
}
