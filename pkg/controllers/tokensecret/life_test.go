package tokensecret

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/cabundle"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

func TestARefusalIsOneEventAndHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, server{}, testkit.ServiceAccount("team/robot"),
			testkit.Secret("team/immutable", testkit.WithAccount("robot")), testkit.Secret("team/s", testkit.WithAccount("robot")))
		tries := map[string]int{}
		f.client.PrependReactor("update", "secrets", func(action clienttesting.Action) (bool, runtime.Object, error) {
			secret := action.(clienttesting.UpdateActionImpl).Object.(*corev1.Secret)
			if tries[secret.Name]++; secret.Name == "immutable" {
				return true, nil, testkit.Invalid("data", string(secret.Data["token"]))
			}
			return true, secret, nil
		})
		defer testkit.Start(f.context(t), t, f.runQueue)()
		f.EnqueueAll()
		time.Sleep(time.Hour)
		synctest.Wait()
		if tries["immutable"] < 10 || tries["s"] != 1 {
			t.Errorf("tries in an hour: %v", tries)
		}
		events := testkit.Events(f.recorder)
		if len(events) != 1 || strings.Contains(strings.Join(events, ""), secretBytes) {
			t.Errorf("want one event without a value, got %q", events)
		}
	})
}

func TestNothingIsDoneBeforeAllCachesAreSynced(t *testing.T) {
	cases := map[string]func(*Controller) toolscache.SharedIndexInformer{
		"secrets alone":          func(c *Controller) toolscache.SharedIndexInformer { return c.cfg.Secrets },
		"service accounts alone": func(c *Controller) toolscache.SharedIndexInformer { return c.cfg.ServiceAccounts },
	}
	for name, informer := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, server{})
				defer testkit.Start(f.context(t), t, f.Run, testkit.Informer(informer(f.Controller)))()
				time.Sleep(time.Minute)
				if f.Ready() {
					t.Error("ready")
				}
			})
		})
	}
}

func TestRunReturnsAfterItsLastRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, server{}, testkit.Secret("team/s", testkit.WithAccount("robot")))
		f.client.PrependReactor("get", "*", func(clienttesting.Action) (bool, runtime.Object, error) {
			time.Sleep(time.Minute)
			return true, nil, errBoom
		})
		f.EnqueueAll()
		stop := testkit.Start(f.context(t), t, f.runQueue)
		synctest.Wait()
		began := time.Now()
		stop()
		if took := time.Since(began); took != time.Minute {
			t.Errorf("Run returned after %v, while a request took a minute", took)
		}
	})
}

// world is a fake API server with the controller and its informers running.
type world struct {
	*Controller
	t      *testing.T
	ctx    context.Context
	client *fake.Clientset
	ca     atomic.Pointer[cabundle.Bundle]
	stop   func()
}

func newWorld(t *testing.T, objects ...runtime.Object) *world {
	t.Helper()
	ctx := klog.NewContext(t.Context(), ktesting.NewLogger(t, ktesting.NewConfig()))
	w := &world{t: t, ctx: ctx, client: fake.NewClientset(objects...)}
	w.setCA(testkit.Bundle())
	w.Controller = newController(t, w.client, record.NewFakeRecorder(100), clock.RealClock{}, func() cabundle.Bundle { return *w.ca.Load() }, &reviewer{})
	w.stop = testkit.Start(ctx, t, w.Run, testkit.Informer(w.cfg.Namespaces), testkit.Informer(w.cfg.Secrets), testkit.Informer(w.cfg.ServiceAccounts))
	return w
}

func (w *world) setCA(ca cabundle.Bundle) { w.ca.Store(&ca) }

func (w *world) must(_ any, err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
	synctest.Wait() // so that changes are seen in this order
}

// expectRequests names what the controller sent since the last time, sorted. What
// the test itself did is in from.
func (w *world) expectRequests(step string, want ...string) {
	w.t.Helper()
	time.Sleep(10 * time.Second)
	synctest.Wait()
	var got []string
	for _, r := range testkit.Requests(w.client.Actions()) {
		if r.Verb != "list" && r.Verb != "watch" {
			got = append(got, r.Verb+" "+r.Resource+" "+r.Name)
		}
	}
	w.client.ClearActions()
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		w.t.Errorf("%s (-want +got):\n%s", step, diff)
	}
}

// TestLife changes the world through the tracker, which the client's list of
// requests does not show: all that it shows is the controller's.
func TestLife(t *testing.T) {
	secrets, accounts := corev1.SchemeGroupVersion.WithResource("secrets"), corev1.SchemeGroupVersion.WithResource("serviceaccounts")
	empty := func(name, account string) *corev1.Secret { return testkit.Secret(name, testkit.WithAccount(account)) }

	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t,
			robot(), secret(),
			empty("team/empty", "robot"), empty("team/orphan", "nobody"))
		defer w.stop()
		tracker := w.client.Tracker()

		w.expectRequests("what happened while no controller ran",
			"update secrets team/empty", "get serviceaccounts team/nobody", "delete secrets team/orphan")
		if !w.Ready() {
			t.Error("not ready")
		}
		w.EnqueueAll()
		w.expectRequests("everything is looked at, and right")

		w.must(nil, tracker.Create(secrets, empty("team/new", "robot"), "team"))
		w.expectRequests("a new secret", "update secrets team/new")
		w.must(nil, tracker.Update(secrets, secret(testkit.WithData("ca.crt", "wrong")), "team"))
		w.expectRequests("a changed secret", "patch secrets team/s")
		w.setCA(testkit.OtherBundle())
		w.EnqueueAll()
		w.expectRequests("the CA changed", "patch secrets team/empty", "patch secrets team/new", "patch secrets team/s")

		w.must(nil, tracker.Delete(secrets, "team", "s"))
		w.expectRequests("a secret went")

		w.must(nil, tracker.Create(accounts, testkit.ServiceAccount("team/other", testkit.WithUID(testkit.OtherUID)), "team"))
		w.must(nil, tracker.Create(secrets, empty("team/of-other", "other"), "team"))
		w.expectRequests("another account's secret", "update secrets team/of-other")
		w.must(nil, tracker.Delete(accounts, "team", "robot"))
		w.expectRequests("an account went, and was seen going", "delete secrets team/empty", "delete secrets team/new")
	})
}

// TestAnAccountThatIsReplaced looks at the one update in which a watch that was
// blind for a moment reports it.
func TestAnAccountThatIsReplaced(t *testing.T) {
	accounts := corev1.SchemeGroupVersion.WithResource("serviceaccounts")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, testkit.ServiceAccount("team/robot"), secret(testkit.WithAccountUID(testkit.AccountUID)),
			testkit.Secret("team/of-the-new", testkit.WithAccount("robot"), testkit.WithAccountUID(testkit.OtherUID), testkit.WithData("token", "t"),
				testkit.WithData("ca.crt", string(testkit.Bundle().PEM())), testkit.WithData("namespace", "team"), testkit.Deleting()))
		defer w.stop()
		w.expectRequests("start", "get serviceaccounts team/robot")
		w.must(nil, w.client.Tracker().Update(accounts, testkit.ServiceAccount("team/robot", testkit.WithUID(testkit.OtherUID)), "team"))
		w.expectRequests("replaced", "delete secrets team/s")
	})
}

func TestNewRefusesAnIncompleteConfig(t *testing.T) {
	complete := newFixture(t, server{}).cfg
	cases := map[string]func(*Config){
		"no client":           func(c *Config) { c.Client = nil },
		"no secrets":          func(c *Config) { c.Secrets = nil },
		"no service accounts": func(c *Config) { c.ServiceAccounts = nil },
		"no namespaces":       func(c *Config) { c.Namespaces = nil },
		"no tokens":           func(c *Config) { c.Tokens = nil },
		"no keys":             func(c *Config) { c.Keys = nil },
		"no token reviews":    func(c *Config) { c.TokenReviews = nil },
		"no CA":               func(c *Config) { c.CA = nil },
		"no recorder":         func(c *Config) { c.Recorder = nil },
		"no clock":            func(c *Config) { c.Clock = nil },
	}
	for name, spoil := range cases {
		t.Run(name, func(t *testing.T) {
			cfg := complete
			spoil(&cfg)
			if _, err := New(cfg); err == nil {
				t.Error("no error")
			}
		})
	}
}
