package tokenrequest

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

func reduced(secret *corev1.Secret) *cache.ManagedSecret {
	return cache.NewManagedSecret(secret.DeepCopy())
}

func TestLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, served(), robot(), managed(with("lifetime", "1h")))
		w.start()
		w.expectRequests("start", oneToken()...)
		if !w.c.Ready() {
			t.Error("not ready")
		}
		time.Sleep(41 * time.Minute)
		w.expectRequests("before it is due")
		time.Sleep(8 * time.Minute)
		w.expectRequests("due", oneToken()...)

		w.must(w.set(func(s *corev1.Secret) { s.Annotations[api.RotateAnnotation] = "now" }))
		w.expectRequests("rotate", oneToken()...)
		w.must(w.set(func(s *corev1.Secret) { s.Data["mine"] = []byte("no") }))
		w.expectRequests("a change of no concern")
		w.must(w.set(func(s *corev1.Secret) { delete(s.Data, "token") }))
		w.expectRequests("somebody removed the token", oneToken()...)

		w.stop()
		time.Sleep(10 * time.Minute)
		w.start()
		time.Sleep(time.Minute)
		w.expectRequests("a restart")

		w.must(w.Tracker().Delete(accountsResource, "team", "robot"))
		w.expectRequests("the account went", "patch secrets team/s")
		w.must(w.Tracker().Create(accountsResource, robot(testkit.WithUID(testkit.OtherUID)), "team"))
		w.expectRequests("another one came", oneToken()...)

		w.must(w.Tracker().Update(namespacesResource, testkit.Namespace("team"), ""))
		time.Sleep(2 * time.Hour)
		w.expectRequests("the namespace lost its label")
		w.must(w.Tracker().Update(namespacesResource, served(), ""))
		w.expectRequests("it got it again", oneToken()...)

		w.must(w.Tracker().Delete(secretsResource, "team", "s"))
		time.Sleep(2 * time.Hour)
		w.expectRequests("the secret went")
		if n := len(w.c.notes.bySecret); n > 0 {
			t.Errorf("still remembers %d secrets", n)
		}
		w.stop()
	})
}

// TestTheRenewalComesFirstThingAfterALongOutage: within what a retry may wait.
func TestTheRenewalComesFirstThingAfterALongOutage(t *testing.T) {
	outages := map[string]error{"unreachable": errors.New("connection refused"), "unavailable": testkit.InternalError()}
	for name, outage := range outages {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, served(), robot(), managed(with("lifetime", "1h")))
				w.start()
				synctest.Wait()
				w.change(func(a *apiServer) { a.tokensErr = outage })
				time.Sleep(20 * time.Hour)
				w.change(func(a *apiServer) { a.tokensErr = nil })
				w.ClearActions()
				time.Sleep(retryOutage)
				w.expectRequests("after the outage", oneToken()...)
				w.stop()
			})
		})
	}
}

// TestARefusalIsOverInTime: rights are given a minute before a token expires.
func TestARefusalIsOverInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, served(), robot(), managed(with("lifetime", "1h")))
		w.start()
		synctest.Wait()
		w.change(func(a *apiServer) { a.tokensErr = testkit.QuotaExceeded() })
		time.Sleep(59 * time.Minute)
		w.change(func(a *apiServer) { a.tokensErr = nil })
		time.Sleep(time.Minute)
		w.expectNoneExpired("a minute later")
		if events := testkit.Events(w.recorder); len(events) != 1 {
			t.Errorf("want one event, got %q", events)
		}
		w.stop()
	})
}

// TestNoStormWithAClockThatIsFarOff: no more than two renewals in a lifetime, whatever
// the clock says.
func TestNoStormWithAClockThatIsFarOff(t *testing.T) {
	for name, off := range map[string]time.Duration{"ahead": 1000 * time.Hour, "behind": -1000 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, served(), robot(), managed(with("lifetime", "1h")))
				w.skew.Store(int64(off))
				w.start()
				time.Sleep(20 * time.Hour)
				synctest.Wait()
				w.expectNoneExpired("after 20 hours")
				if w.granted < 25 || w.granted > 41 {
					t.Errorf("%d tokens in 20 hours", w.granted)
				}
				w.stop()
			})
		})
	}
}

func TestNothingIsDoneBeforeAllCachesAreSynced(t *testing.T) {
	all := map[string]func(*Controller) toolscache.SharedIndexInformer{
		"namespaces":       func(c *Controller) toolscache.SharedIndexInformer { return c.cfg.Namespaces },
		"secrets":          func(c *Controller) toolscache.SharedIndexInformer { return c.cfg.Secrets },
		"service accounts": func(c *Controller) toolscache.SharedIndexInformer { return c.cfg.ServiceAccounts },
	}
	for missing := range all {
		t.Run("all but "+missing, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAPI(time.Now, served(), robot(), managed())
				c := newController(t, a, func(cfg *Config) {
					cfg.Recorder, cfg.Clock, cfg.Running = record.NewFakeRecorder(9), clock.RealClock{}, clock.RealClock{}
				})
				run := []func(context.Context) error{c.Run}
				for name, informer := range all {
					if name != missing {
						run = append(run, testkit.Informer(informer(c)))
					}
				}
				defer testkit.Start(t.Context(), t, run...)()
				time.Sleep(time.Minute)
				if c.Ready() || a.granted > 0 || a.patches > 0 {
					t.Errorf("ready %t, %d tokens, %d patches", c.Ready(), a.granted, a.patches)
				}
			})
		})
	}
}
