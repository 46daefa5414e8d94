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
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/cabundle"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

func TestARefusalIsOneEventAndDelaysNoOtherSecret(t *testing.T) {
	cases := map[string]*corev1.Secret{
		"of a token":    testkit.Secret("team/immutable", testkit.WithAccount("robot")),
		"of another CA": secret(testkit.WithData("ca.crt", "old")),
	}
	for name, immutable := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				immutable.Name = "immutable"
				f := newFixture(t, apiServer{})
				f.Controller = newController(t, f.client, f.recorder, clock.RealClock{}, testkit.Bundle, f.reviewer)
				f.cfg.Resign = ResignNever // the tokens here are none
				for _, obj := range []metav1.Object{robot(), immutable, testkit.Secret("team/s", testkit.WithAccount("robot"))} {
					f.cache(t, obj)
				}
				f.client.PrependReactor("*", "secrets", func(action clienttesting.Action) (bool, runtime.Object, error) {
					refused := strings.HasSuffix(testkit.Requests([]clienttesting.Action{action})[0].Name, "/immutable")
					return refused, nil, testkit.Invalid("data", secretBytes)
				})
				defer testkit.Start(f.context(t), t, f.runQueue)()
				f.EnqueueAll()
				time.Sleep(time.Hour)
				synctest.Wait()
				tries := map[string]int{}
				for _, write := range f.writes() {
					tries[write[strings.Index(write, "/")+1:]]++
				}
				if tries["immutable"] < 10 || tries["immutable"] > 40 || tries["s"] != 1 {
					t.Errorf("tries in an hour: %v", tries)
				}
				events := slices.DeleteFunc(testkit.Events(f.recorder), func(event string) bool { return strings.Contains(event, api.ReasonKeptToken) })
				if len(events) != 1 || strings.Contains(strings.Join(events, ""), secretBytes) {
					t.Errorf("want one event without a value, got %q", events)
				}
			})
		})
	}
}

func TestNothingIsSyncedBeforeAllCachesAre(t *testing.T) {
	cases := map[string]func(*Controller) toolscache.SharedIndexInformer{
		"secrets alone":          func(c *Controller) toolscache.SharedIndexInformer { return c.cfg.Secrets },
		"service accounts alone": func(c *Controller) toolscache.SharedIndexInformer { return c.cfg.ServiceAccounts },
	}
	for name, informer := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, apiServer{})
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
		f := newFixture(t, apiServer{}, testkit.Secret("team/s", testkit.WithAccount("robot")))
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

// runningController is a controller that runs, with its informers, against a fake API server.
type runningController struct {
	*Controller
	t      *testing.T
	ctx    context.Context
	client *fake.Clientset
	ca     atomic.Pointer[cabundle.Bundle]
	stop   func()
}

func startController(t *testing.T, objects ...runtime.Object) *runningController {
	t.Helper()
	return startControllerWith(t, func(*fake.Clientset) {}, objects...)
}

// startControllerWith lets prepare change the client before any request: a fake clientset must not be
// changed while it is used.
func startControllerWith(t *testing.T, prepare func(*fake.Clientset), objects ...runtime.Object) *runningController {
	t.Helper()
	ctx := klog.NewContext(t.Context(), ktesting.NewLogger(t, ktesting.NewConfig()))
	r := &runningController{t: t, ctx: ctx, client: fake.NewClientset(objects...)}
	prepare(r.client)
	r.setCA(testkit.Bundle())
	r.Controller = newController(t, r.client, record.NewFakeRecorder(100), clock.RealClock{}, func() cabundle.Bundle { return *r.ca.Load() }, &fakeReviewer{})
	r.cfg.Resign = ResignNever // the tokens here are none
	r.stop = testkit.Start(ctx, t, r.Run, testkit.Informer(r.cfg.Namespaces), testkit.Informer(r.cfg.Secrets), testkit.Informer(r.cfg.ServiceAccounts))
	return r
}

func (r *runningController) setCA(ca cabundle.Bundle) { r.ca.Store(&ca) }

// must fails the test on err. It waits until the controller has seen the change, so that changes
// are seen in the order in which they are made.
func (r *runningController) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
	synctest.Wait()
}

// expectRequests compares, in any order, the writes and GETs of the controller since the last call.
// Tests change objects through the tracker, whose changes are not among them.
func (r *runningController) expectRequests(step string, want ...string) {
	r.t.Helper()
	time.Sleep(10 * time.Second)
	synctest.Wait()
	var got []string
	for _, request := range testkit.Requests(r.client.Actions()) {
		if request.Verb != "list" && request.Verb != "watch" {
			got = append(got, request.Verb+" "+request.Resource+" "+request.Name)
		}
	}
	r.client.ClearActions()
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		r.t.Errorf("%s (-want +got):\n%s", step, diff)
	}
}

func TestLife(t *testing.T) {
	secrets, accounts := corev1.SchemeGroupVersion.WithResource("secrets"), corev1.SchemeGroupVersion.WithResource("serviceaccounts")
	empty := func(name, account string) *corev1.Secret { return testkit.Secret(name, testkit.WithAccount(account)) }

	synctest.Test(t, func(t *testing.T) {
		r := startController(t, robot(), secret(), empty("team/empty", "robot"), empty("team/orphan", "missing"))
		defer r.stop()
		tracker := r.client.Tracker()

		r.expectRequests("changes from the time when no controller ran",
			"update secrets team/empty", "get serviceaccounts team/missing", "get serviceaccounts team/missing", "delete secrets team/orphan")
		if !r.Ready() {
			t.Error("not ready")
		}
		r.EnqueueAll()
		r.expectRequests("everything is synced, and right")

		r.must(tracker.Create(secrets, empty("team/new", "robot"), "team"))
		r.expectRequests("a new secret", "update secrets team/new")
		r.must(tracker.Update(secrets, secret(testkit.WithData("ca.crt", "wrong")), "team"))
		r.expectRequests("a changed secret", "patch secrets team/s")
		r.setCA(testkit.OtherBundle())
		r.EnqueueAll()
		r.expectRequests("the CA changed", "patch secrets team/empty", "patch secrets team/new", "patch secrets team/s")

		r.must(tracker.Delete(secrets, "team", "s"))
		r.expectRequests("a secret is deleted")

		r.must(tracker.Create(accounts, testkit.ServiceAccount("team/other", testkit.WithUID(testkit.OtherUID)), "team"))
		r.must(tracker.Create(secrets, empty("team/of-other", "other"), "team"))
		r.expectRequests("another account's secret", "update secrets team/of-other")
		r.must(tracker.Delete(accounts, "team", "robot"))
		r.expectRequests("an account is deleted", "delete secrets team/empty", "delete secrets team/new")
	})
}

// A watch that was broken for a moment reports the deletion of an account and the creation of the
// next one as one update.
func TestAnAccountThatIsReplaced(t *testing.T) {
	accounts := corev1.SchemeGroupVersion.WithResource("serviceaccounts")
	synctest.Test(t, func(t *testing.T) {
		r := startController(t, testkit.ServiceAccount("team/robot"), secret(testkit.WithAccountUID(testkit.AccountUID)),
			testkit.Secret("team/of-the-new", testkit.WithAccount("robot"), testkit.WithAccountUID(testkit.OtherUID), testkit.WithData("token", "t"),
				testkit.WithData("ca.crt", string(testkit.Bundle().PEM())), testkit.WithData("namespace", "team"), testkit.Deleting()))
		defer r.stop()
		r.expectRequests("start", "get serviceaccounts team/robot")
		r.must(r.client.Tracker().Update(accounts, testkit.ServiceAccount("team/robot", testkit.WithUID(testkit.OtherUID)), "team"))
		r.expectRequests("replaced, as a list says that has no account for many of the Secrets", "get serviceaccounts team/robot")
		r.expectRequests("the account has another UID still", "get serviceaccounts team/robot", "delete secrets team/s")
	})
}

func TestNewRefusesAnIncompleteConfig(t *testing.T) {
	complete := newFixture(t, apiServer{}).cfg
	cases := map[string]func(*Config){
		"no client":           func(c *Config) { c.Client = nil },
		"no secrets":          func(c *Config) { c.Secrets = nil },
		"no service accounts": func(c *Config) { c.ServiceAccounts = nil },
		"no namespaces":       func(c *Config) { c.Namespaces = nil },
		"no tokens":           func(c *Config) { c.Tokens = nil },
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
