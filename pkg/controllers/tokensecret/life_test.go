package tokensecret

import (
	"context"
	"fmt"
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
	metadatafake "k8s.io/client-go/metadata/fake"
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
		defer testkit.Start(f.context(t), t, runner(f.secrets))()
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
				if f.secrets.Ready() || f.references.Ready() {
					t.Error("ready")
				}
			})
		})
	}
}

func TestReadyIsBothQueues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, server{})
		defer testkit.Start(f.context(t), t, runner(f.secrets))()
		if synctest.Wait(); f.Ready() {
			t.Error("ready before its references")
		}
		defer testkit.Start(f.context(t), t, runner(f.references))()
		if synctest.Wait(); !f.Ready() {
			t.Error("not ready")
		}
	})
}

func TestRunReturnsAfterBothQueues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, server{}, robot("robot-token-x7z9q"))
		f.synced = nil
		f.metadata.PrependReactor("get", "*", func(clienttesting.Action) (bool, runtime.Object, error) {
			time.Sleep(time.Minute)
			return true, nil, errBoom
		})
		f.references.Add(keyOf("team/robot"))
		stop := testkit.Start(f.context(t), t, f.Run)
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
	meta := &metadatafake.FakeMetadataClient{}
	meta.AddReactor("*", "*", server{}.react) // what is not in the cache is not there
	w.Controller = newController(t, w.client, meta, record.NewFakeRecorder(100), clock.RealClock{}, func() cabundle.Bundle { return *w.ca.Load() }, &reviewer{})
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
			testkit.ServiceAccount("team/robot", testkit.WithReferences("s", "robot-token-x7z9q", "meant-for-later")), secret(),
			testkit.ServiceAccount("team/old", testkit.WithReferences("old-token-x7z9q")),
			empty("team/empty", "robot"), empty("team/orphan", "nobody"))
		defer w.stop()
		tracker := w.client.Tracker()

		w.expectRequests("what happened while no controller ran",
			"update secrets team/empty", "get serviceaccounts team/nobody", "delete secrets team/orphan", "patch serviceaccounts team/robot", "patch serviceaccounts team/old")
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
		w.expectRequests("a secret went", "patch serviceaccounts team/robot")
		account, err := w.client.CoreV1().ServiceAccounts("team").Get(w.ctx, "robot", metav1.GetOptions{})
		w.must(account, err)
		if diff := cmp.Diff(robot("meant-for-later").Secrets, account.Secrets); diff != "" {
			t.Errorf("references (-want +got):\n%s", diff)
		}
		w.client.ClearActions()

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

// TestAnAccountThatIsWrittenBeforeItsSecret is what tools that restore a namespace
// do: the reference is there first.
func TestAnAccountThatIsWrittenBeforeItsSecret(t *testing.T) {
	secrets, accounts := corev1.SchemeGroupVersion.WithResource("secrets"), corev1.SchemeGroupVersion.WithResource("serviceaccounts")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, testkit.ServiceAccount("team/old", testkit.WithReferences("old-token-x7z9q")))
		defer w.stop()
		if synctest.Wait(); len(w.client.Actions()) != 7 || !w.Ready() { // three lists, three watches, one patch
			t.Errorf("what was there at the start is not done at once: ready %t, %v", w.Ready(), w.client.Actions())
		}
		w.expectRequests("start", "patch serviceaccounts team/old")
		w.must(nil, w.client.Tracker().Create(accounts, robot("robot-token-x7z9q"), "team"))
		time.Sleep(4 * time.Second)
		w.must(nil, w.client.Tracker().Create(secrets, testkit.Secret("team/robot-token-x7z9q", testkit.WithAccount("robot")), "team"))
		w.expectRequests("the secret comes", "update secrets team/robot-token-x7z9q")
		w.must(nil, w.client.Tracker().Update(accounts, robot("robot-token-x7z9q", "robot-token-bcdfg"), "team"))
		w.expectRequests("another does not", "patch serviceaccounts team/robot")
	})
}

func TestABurstOfDeletionsIsOneWrite(t *testing.T) {
	secrets := corev1.SchemeGroupVersion.WithResource("secrets")
	synctest.Test(t, func(t *testing.T) {
		var names []string
		objects := []runtime.Object{}
		for i := range 200 {
			names = append(names, fmt.Sprintf("mine-%d", i))
			objects = append(objects, testkit.Secret("team/"+names[i], testkit.WithAccount("robot"), testkit.WithAccountUID(testkit.AccountUID),
				testkit.WithData("token", "t"), testkit.WithData("namespace", "team"), testkit.WithData("ca.crt", string(testkit.Bundle().PEM()))))
		}
		w := newWorld(t, append(objects, robot(names...))...)
		defer w.stop()
		w.expectRequests("start")
		for i, name := range names {
			w.must(nil, w.client.Tracker().Delete(secrets, "team", name))
			if i%40 == 39 {
				time.Sleep(100 * time.Millisecond)
			}
		}
		w.expectRequests("200 secrets went within half a second", "patch serviceaccounts team/robot")
	})
}
