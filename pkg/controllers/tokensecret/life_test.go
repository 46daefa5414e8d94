package tokensecret

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/testkit/fakeapi"
)

// startController runs a controller with its informers, in simulated time.
func startController(t *testing.T, objects ...runtime.Object) (f fixture, stop func()) {
	t.Helper()
	f = newFixtureWith(t, clock.RealClock{}, objects...)
	return f, testkit.Start(f.context(t), t, f.Run, testkit.Informer(f.cfg.Namespaces), testkit.Informer(f.cfg.Secrets), testkit.Informer(f.cfg.ServiceAccounts))
}

// set creates or replaces an object as a user does, and waits until the controller is idle.
func (f fixture) set(obj runtime.Object) {
	f.server.Set(obj)
	synctest.Wait()
}

// remove deletes an object as a user does. Its last version, which the watch shows, is newer than all
// others then, and differs in nothing else: the controller may see it before it is gone.
func (f fixture) remove(obj runtime.Object) {
	if secret, ok := obj.(*corev1.Secret); ok {
		obj = fakeapi.Get[corev1.Secret](f.server, secret.Namespace+"/"+secret.Name)
	}
	f.server.Set(obj)
	f.server.Remove(obj)
	synctest.Wait()
}

// expectAfter lets time pass, and compares, in any order, the requests since the last call.
func (f fixture) expectAfter(t *testing.T, d time.Duration, step string, want ...string) {
	t.Helper()
	time.Sleep(d)
	synctest.Wait()
	got := f.requests()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%s: requests %q, want %q", step, got, want)
	}
}

func TestLife(t *testing.T) {
	of := func(account string, name string) *corev1.Secret {
		return empty(named(name), testkit.WithAccount(account))
	}
	synctest.Test(t, func(t *testing.T) {
		f, stop := startController(t, robot(), secret(), of("robot", "empty"), of("missing", "orphan"))
		defer stop()
		expect := func(step string, want ...string) {
			t.Helper()
			f.expectAfter(t, 10*time.Second, step, want...)
		}
		expect("changes from the time when no controller ran",
			"update secrets team/empty", "get serviceaccounts team/missing", "get serviceaccounts team/missing", "delete secrets team/orphan")
		if !f.Ready() {
			t.Error("not ready")
		}
		f.EnqueueAll()
		expect("everything is synced, and right")

		f.set(of("robot", "new"))
		expect("a new secret", "update secrets team/new")
		f.set(secret(testkit.WithData("ca.crt", "wrong")))
		expect("a changed secret", "patch secrets team/s")
		f.cfg.CA = testkit.OtherBundle
		f.EnqueueAll()
		expect("the CA changed", "patch secrets team/empty", "patch secrets team/new", "patch secrets team/s")
		f.remove(secret())
		expect("a secret is deleted")

		f.set(robot(named("other"), testkit.WithUID(testkit.OtherUID)))
		f.set(of("other", "of-other"))
		expect("another account's secret", "update secrets team/of-other")
		f.remove(robot())
		expect("an account is deleted", "delete secrets team/empty", "delete secrets team/new")

		f.set(of("robot", "early"))
		f.expectAfter(t, accountGrace-time.Second, "a secret whose account does not exist yet", "get serviceaccounts team/robot")
		f.set(robot())
		expect("the account appears", "update secrets team/early")
		if !f.missing.empty() {
			t.Errorf("remembered %v", f.missing.bySecret)
		}
	})
}

// A watch that was broken for a moment reports the deletion of an account and the creation of the
// next one as one update.
func TestAnAccountThatIsReplaced(t *testing.T) {
	const get = "get serviceaccounts team/robot"
	synctest.Test(t, func(t *testing.T) {
		successor := robot(testkit.WithUID(testkit.OtherUID))
		f, stop := startController(t, robot(), secret(), secret(named("of-the-new"), testkit.WithAccountUID(successor.UID), testkit.Deleting()))
		defer stop()
		f.expectAfter(t, time.Second, "start", get)
		f.set(successor)
		f.expectAfter(t, 10*time.Second, "replaced, as a list says that has no account for many of the Secrets", get)
		f.expectAfter(t, 10*time.Second, "the account has another UID still", get, "delete secrets team/s")
	})
}

func TestARefusalIsOneEventAndDelaysNoOtherSecret(t *testing.T) {
	cases := map[string]*corev1.Secret{"of a token": empty(), "of another CA": secret(testkit.WithData("ca.crt", "old"))}
	for name, immutable := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				immutable.Name = "immutable"
				f := newFixtureWith(t, clock.RealClock{}, robot(), immutable, empty())
				f.cfg.Resign = ResignNever // the token of the other is for team/s
				f.server.Inject(func(action clienttesting.Action) *fakeapi.Fault {
					if strings.HasSuffix(testkit.Requests([]clienttesting.Action{action})[0].Name, "/immutable") {
						return &fakeapi.Fault{Err: testkit.Invalid("data", beginningOfTokens)}
					}
					return nil
				})
				for _, obj := range []runtime.Object{robot(), immutable, empty()} {
					f.cache(t, obj)
				}
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
				if len(events) != 1 || strings.Contains(strings.Join(events, ""), beginningOfTokens) {
					t.Errorf("want one event without a value, got %q", events)
				}
			})
		})
	}
}

func TestItNeedsAllCaches(t *testing.T) {
	testkit.ExpectNeedsAllCaches(t, func(t *testing.T) (testkit.Controller, []toolscache.SharedIndexInformer) {
		t.Helper()
		f := newFixture(t)
		return f, []toolscache.SharedIndexInformer{f.cfg.Namespaces, f.cfg.Secrets, f.cfg.ServiceAccounts}
	})
}

func TestRunReturnsAfterItsLastRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, empty())
		f.server.Inject(func(clienttesting.Action) *fakeapi.Fault {
			time.Sleep(time.Minute)
			return &fakeapi.Fault{Err: errBoom}
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

func TestNewRefusesAnIncompleteConfig(t *testing.T) {
	testkit.ExpectRequired(t, newFixture(t).cfg, New, "ConfirmLive", "Resign", "ResignQPS", "Workers", "Registerer")
}
