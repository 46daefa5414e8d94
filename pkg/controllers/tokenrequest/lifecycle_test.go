package tokenrequest

import (
	"errors"
	"sync/atomic"
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

func TestLifecycle(t *testing.T) {
	run(t, func(t *testing.T, r *runningController) {
		r.expectRequests("start", oneToken()...)
		if !r.controller.Ready() {
			t.Error("not ready")
		}
		time.Sleep(41 * time.Minute)
		r.expectRequests("before it is due")
		time.Sleep(8 * time.Minute)
		r.expectRequests("due", oneToken()...)

		r.updateSecret(func(s *corev1.Secret) { s.Annotations[api.RotateAnnotation] = "now" })
		r.expectRequests("rotate", oneToken()...)
		r.updateSecret(func(s *corev1.Secret) { s.Data["mine"] = []byte("no") })
		r.expectRequests("an unrelated change")
		r.updateSecret(func(s *corev1.Secret) { delete(s.Data, "token") })
		r.expectRequests("a user removed the token", oneToken()...)

		r.stop()
		time.Sleep(10 * time.Minute)
		r.start()
		time.Sleep(time.Minute)
		r.expectRequests("a restart")

		r.Remove(robot())
		r.expectRequests("the account was deleted", "patch secrets team/s")
		r.Set(robot(testkit.WithUID(testkit.OtherUID)))
		r.expectRequests("another account was created", oneToken()...)

		r.Set(testkit.Namespace("team"))
		time.Sleep(2 * time.Hour)
		r.expectRequests("the namespace lost its label", "patch secrets team/s") // what is wrong
		time.Sleep(2 * time.Hour)
		r.expectRequests("still without its label")
		r.Set(served())
		r.expectRequests("the namespace got its label again", oneToken()...)

		r.Remove(managed())
		time.Sleep(2 * time.Hour)
		r.expectRequests("the secret was deleted")
		if n := len(r.controller.notes.bySecret); n > 0 {
			t.Errorf("%d notes are left", n)
		}
	}, hour())
}

func TestATokenIsRenewedSoonAfterALongOutage(t *testing.T) {
	outages := map[string]error{"unreachable": errors.New("connection refused"), "unavailable": testkit.InternalError()}
	for name, outage := range outages {
		t.Run(name, func(t *testing.T) {
			run(t, func(_ *testing.T, r *runningController) {
				r.configure(func(a *fakeAPIServer) { a.tokensErr = outage })
				time.Sleep(20 * time.Hour)
				r.configure(func(a *fakeAPIServer) { a.tokensErr = nil })
				r.ClearActions()
				time.Sleep(maxOutageDelay)
				r.expectRequests("after the outage", oneToken()...)
			}, hour())
		})
	}
}

// TestATokenIsRenewedInTimeAfterARejection grants permission a minute before the token expires.
func TestATokenIsRenewedInTimeAfterARejection(t *testing.T) {
	run(t, func(t *testing.T, r *runningController) {
		r.configure(func(a *fakeAPIServer) { a.tokensErr = testkit.QuotaExceeded() })
		time.Sleep(59 * time.Minute)
		r.configure(func(a *fakeAPIServer) { a.tokensErr = nil })
		time.Sleep(time.Minute)
		r.expectNoneExpired("a minute later")
		if events := testkit.Events(r.recorder); len(events) != 1 {
			t.Errorf("want one event, got %q", events)
		}
	}, hour())
}

// TestAWrongClockCausesFewRenewals allows no more than two renewals in a lifetime, or one a minute
// where every token is ahead of the clock.
func TestAWrongClockCausesFewRenewals(t *testing.T) {
	cases := map[string]struct {
		off     time.Duration
		follows bool // the clock follows that of the API server, as [kube.ServerClock] does
		most    int
	}{
		"ahead":                        {off: 1000 * time.Hour, most: 41},
		"behind":                       {off: -1000 * time.Hour, most: 20*60 + 1},
		"behind until the next answer": {off: -1000 * time.Hour, follows: true, most: 41},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRunningController(t, served(), robot(), managed(hour()))
				r.skew.Store(int64(tc.off))
				check := r.onPatch
				r.onPatch = func(before, after *corev1.Secret) {
					check(before, after)
					if tc.follows {
						r.skew.Store(0)
					}
				}
				r.start()
				time.Sleep(20 * time.Hour)
				synctest.Wait()
				r.expectNoneExpired("after 20 hours")
				if r.grantedTokens() < 25 || r.grantedTokens() > tc.most {
					t.Errorf("%d tokens in 20 hours", r.grantedTokens())
				}
				r.stop()
			})
		})
	}
}

// TestATokenThatIsNotValidYetIsRenewed: the clock of the control plane is two days ahead, and is
// set back after a while.
func TestATokenThatIsNotValidYetIsRenewed(t *testing.T) {
	for name, restarts := range map[string]bool{"by the process that requested it": false, "by another process": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var ahead atomic.Int64
				ahead.Store(int64(48 * time.Hour))
				r := newRunningController(t, served(), robot(), managed())
				r.now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
				r.start()
				time.Sleep(10*time.Minute + time.Second)
				synctest.Wait()
				if r.grantedTokens() < 10 || r.grantedTokens() > 12 {
					t.Errorf("%d tokens in ten minutes", r.grantedTokens())
				}
				ahead.Store(0)
				if restarts {
					r.stop()
					r.start()
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				term, _ := resultsOn(reduced(r.secret())).term()
				if term.NotYetValid(time.Now()) {
					t.Errorf("a minute later, it is good from %v on, and it is %v", term.Issued, time.Now())
				}
				before := r.grantedTokens()
				time.Sleep(10 * time.Minute)
				synctest.Wait()
				if r.grantedTokens() != before {
					t.Errorf("%d tokens more", r.grantedTokens()-before)
				}
				r.stop()
			})
		})
	}
}

func TestNothingIsDoneBeforeAllCachesAreSynced(t *testing.T) {
	testkit.ExpectNeedsAllCaches(t, func(t *testing.T) (testkit.Controller, []toolscache.SharedIndexInformer) {
		t.Helper()
		a := newFakeAPIServer(time.Now, served(), robot(), managed())
		c := newController(t, a, func(cfg *Config) {
			cfg.Recorder, cfg.Clock, cfg.Monotonic = record.NewFakeRecorder(9), clock.RealClock{}, clock.RealClock{}
		})
		return c, []toolscache.SharedIndexInformer{c.cfg.Namespaces, c.cfg.Secrets, c.cfg.ServiceAccounts}
	})
}
