package serviceaccount

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"
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

	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixture is a controller whose caches are filled by hand and whose writes all
// get the same answer.
type fixture struct {
	*Controller
	client   *fake.Clientset
	recorder *record.FakeRecorder
}

func newFixture(t *testing.T, answer error, cached ...metav1.Object) fixture {
	t.Helper()
	f := fixture{client: &fake.Clientset{}, recorder: record.NewFakeRecorder(100)}
	f.recorder.IncludeObject = true
	f.client.AddReactor("*", "*", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, &corev1.ServiceAccount{}, answer
	})
	f.Controller = newController(t, f.client, f.recorder)
	for _, obj := range cached {
		store := f.cfg.Namespaces.GetStore()
		if _, ok := obj.(*corev1.ServiceAccount); ok {
			store = f.cfg.ServiceAccounts.GetStore()
		}
		if err := store.Add(obj); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func newController(t *testing.T, client *fake.Clientset, recorder record.EventRecorder) *Controller {
	t.Helper()
	cfg := Config{Client: client.CoreV1(), Names: []string{"default", "robot"}, Recorder: recorder, Clock: clock.RealClock{}}
	var errNamespaces, errAccounts, err error
	cfg.Namespaces, errNamespaces = cache.Namespaces(client)
	cfg.ServiceAccounts, errAccounts = cache.ServiceAccounts(client)
	c, err := New(cfg)
	if err := errors.Join(errNamespaces, errAccounts, err); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // ends the queue where no test ran it
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = c.Run(ctx)
	})
	return c
}

func newContext(t *testing.T) context.Context {
	t.Helper()
	return klog.NewContext(t.Context(), ktesting.NewLogger(t, ktesting.NewConfig(ktesting.Verbosity(10))))
}

func byName(a, b testkit.Request) bool { return a.Name < b.Name }

func createRequest(name string) testkit.Request {
	key, _ := toolscache.ParseObjectName(name)
	return testkit.Request{
		Verb: "create", Resource: "serviceaccounts", Name: name,
		Body: &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}},
	}
}

func TestSync(t *testing.T) {
	create := []testkit.Request{createRequest("team/default")}
	event := func(err error) []string {
		return []string{`Warning FailedCreateServiceAccount The API server refuses to create service account team/default: ` + err.Error() + " involvedObject{kind=Namespace,apiVersion=v1}"}
	}
	internal, quota := testkit.InternalError(), testkit.QuotaExceeded()

	cases := map[string]struct {
		inCached   []metav1.Object
		inAnswer   error
		want       []testkit.Request
		wantErr    error
		wantEvents []string
	}{
		"a missing account is one create": {
			inCached: []metav1.Object{testkit.Namespace("team")},
			want:     create,
		},
		"an account of the name elsewhere does not count": {
			inCached: []metav1.Object{testkit.Namespace("team"), testkit.ServiceAccount("other/default"), testkit.ServiceAccount("team/robot")},
			want:     create,
		},
		"an account that exists is left alone": {
			inCached: []metav1.Object{testkit.Namespace("team"), testkit.ServiceAccount("team/default")},
		},
		"so is one that is being deleted": {
			inCached: []metav1.Object{testkit.Namespace("team"), testkit.ServiceAccount("team/default", testkit.Deleting())},
		},
		"nothing is written into a terminating namespace": {
			inCached: []metav1.Object{testkit.Namespace("team", testkit.Terminating())},
		},
		"nor into one that is gone": {},
		"somebody was faster": {
			inCached: []metav1.Object{testkit.Namespace("team")},
			inAnswer: testkit.AlreadyExists(),
			want:     create,
		},
		"the namespace went": {
			inCached: []metav1.Object{testkit.Namespace("team")},
			inAnswer: testkit.NotFound(),
			want:     create,
		},
		"the namespace is on its way out": {
			inCached: []metav1.Object{testkit.Namespace("team")},
			inAnswer: testkit.NamespaceTerminating(),
			want:     create,
		},
		"a quota is told to people": {
			inCached:   []metav1.Object{testkit.Namespace("team")},
			inAnswer:   quota,
			want:       create,
			wantErr:    quota,
			wantEvents: event(quota),
		},
		"an internal error is not": {
			inCached: []metav1.Object{testkit.Namespace("team")},
			inAnswer: internal,
			want:     create,
			wantErr:  internal,
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, tc.inAnswer, tc.inCached...)
			again, err := f.sync(newContext(t), toolscache.ObjectName{Namespace: "team", Name: "default"})
			if !errors.Is(err, tc.wantErr) || (tc.wantErr == nil) != (err == nil) {
				t.Errorf("error %v, want %v", err, tc.wantErr)
			}
			if again != 0 {
				t.Errorf("again after %v", again)
			}
			if diff := cmp.Diff(tc.want, testkit.Requests(f.client.Actions())); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.wantEvents, testkit.Events(f.recorder)); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
		})
	}
}

func TestErrorsSayWhatWasDone(t *testing.T) {
	f := newFixture(t, testkit.InternalError(), testkit.Namespace("team"))
	_, err := f.sync(newContext(t), toolscache.ObjectName{Namespace: "team", Name: "default"})
	if want := "create service account team/default: " + testkit.InternalError().Error(); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestARefusalIsOneEventHoweverOftenItIsTried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, testkit.QuotaExceeded(), testkit.Namespace("team"))
		defer testkit.Start(newContext(t), t, func(ctx context.Context) error { return f.queue.Run(ctx) })()
		f.queue.Add(toolscache.ObjectName{Namespace: "team", Name: "default"})
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := len(f.client.Actions()); n < 10 {
			t.Errorf("%d tries in an hour", n)
		}
		if events := testkit.Events(f.recorder); len(events) != 1 {
			t.Errorf("want one event, got %q", events)
		}
	})
}

func TestNothingIsDoneBeforeAllCachesAreSynced(t *testing.T) {
	cases := map[string]func(*Controller) toolscache.SharedIndexInformer{
		"namespaces alone":       func(c *Controller) toolscache.SharedIndexInformer { return c.cfg.Namespaces },
		"service accounts alone": func(c *Controller) toolscache.SharedIndexInformer { return c.cfg.ServiceAccounts },
	}
	for name, informer := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newController(t, fake.NewClientset(testkit.Namespace("team")), record.NewFakeRecorder(100))
				defer testkit.Start(newContext(t), t, c.Run, testkit.Informer(informer(c)))()
				time.Sleep(time.Minute)
				if c.Ready() {
					t.Error("ready")
				}
			})
		})
	}
}

// TestLife runs the controller with its informers against a fake API server.
func TestLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := newContext(t)
		client := fake.NewClientset(testkit.Namespace("before"), testkit.Namespace("leaving", testkit.Terminating()), testkit.ServiceAccount("before/robot"))
		client.PrependReactor("create", "serviceaccounts", func(action clienttesting.Action) (bool, runtime.Object, error) {
			return action.GetNamespace() == "lagging", &corev1.ServiceAccount{}, nil // created, and no event
		})
		c := newController(t, client, record.NewFakeRecorder(100))
		defer testkit.Start(ctx, t, c.Run)()
		if synctest.Wait(); c.Ready() {
			t.Error("ready before its caches")
		}
		defer testkit.Start(ctx, t, testkit.Informer(c.cfg.Namespaces), testkit.Informer(c.cfg.ServiceAccounts))()

		expectWrites := func(step string, want ...testkit.Request) {
			t.Helper()
			time.Sleep(time.Second)
			synctest.Wait()
			var got []testkit.Request
			for _, r := range testkit.Requests(client.Actions()) {
				if r.Verb == "create" && r.Resource == "serviceaccounts" {
					got = append(got, r)
				}
			}
			client.ClearActions()
			if diff := cmp.Diff(want, got, cmpopts.SortSlices(byName)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", step, diff)
			}
		}
		must := func(_ any, err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait() // so that changes are seen in this order
		}

		expectWrites("start", createRequest("before/default"))
		if !c.Ready() {
			t.Error("not ready")
		}
		must(client.CoreV1().Namespaces().Create(ctx, testkit.Namespace("later"), metav1.CreateOptions{}))
		expectWrites("new namespace", createRequest("later/default"), createRequest("later/robot"))
		must(nil, client.CoreV1().ServiceAccounts("later").Delete(ctx, "robot", metav1.DeleteOptions{}))
		expectWrites("account deleted", createRequest("later/robot"))
		must(client.CoreV1().Namespaces().Create(ctx, testkit.Namespace("lagging"), metav1.CreateOptions{}))
		expectWrites("new namespace, the watch of accounts lags", createRequest("lagging/default"), createRequest("lagging/robot"))
		must(client.CoreV1().Namespaces().Update(ctx, testkit.Namespace("lagging", testkit.WithLabel("app", "ci")), metav1.UpdateOptions{}))
		expectWrites("its label changed")
		must(nil, client.Tracker().Add(testkit.ServiceAccount("lagging/other")))
		must(nil, client.CoreV1().ServiceAccounts("lagging").Delete(ctx, "other", metav1.DeleteOptions{}))
		expectWrites("an account of another name deleted")
		must(client.CoreV1().Namespaces().Update(ctx, testkit.Namespace("later", testkit.Terminating()), metav1.UpdateOptions{}))
		must(nil, client.CoreV1().ServiceAccounts("later").Delete(ctx, "default", metav1.DeleteOptions{}))
		expectWrites("namespace terminating, account deleted")
		must(client.CoreV1().Namespaces().Update(ctx, testkit.Namespace("leaving", testkit.WithUID(testkit.OtherUID)), metav1.UpdateOptions{}))
		expectWrites("namespace gone and back while the watch was blind", createRequest("leaving/default"), createRequest("leaving/robot"))
	})
}

func TestNewRefusesAnIncompleteConfig(t *testing.T) {
	complete := newFixture(t, nil).cfg
	cases := map[string]func(*Config){
		"no client":           func(c *Config) { c.Client = nil },
		"no namespaces":       func(c *Config) { c.Namespaces = nil },
		"no service accounts": func(c *Config) { c.ServiceAccounts = nil },
		"no recorder":         func(c *Config) { c.Recorder = nil },
		"no names":            func(c *Config) { c.Names = nil },
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

// The cache shows no account here: whatever is created, somebody deletes.
func TestAnAccountThatIsDeletedFiveTimesIsLeftAlone(t *testing.T) {
	f := newFixture(t, nil, testkit.Namespace("team"))
	var again time.Duration
	for range 10 {
		var err error
		if again, err = f.sync(newContext(t), toolscache.ObjectName{Namespace: "team", Name: "default"}); err != nil {
			t.Fatal(err)
		}
	}
	if got := len(f.client.Actions()); got != 5 {
		t.Errorf("%d writes", got)
	}
	if again <= 0 || again > time.Hour {
		t.Errorf("looks again after %v", again)
	}
	if _, err := f.sync(newContext(t), toolscache.ObjectName{Namespace: "team", Name: "robot"}); err != nil || len(f.client.Actions()) != 6 {
		t.Errorf("another account: %v, %d writes", err, len(f.client.Actions()))
	}
	if events := testkit.Events(f.recorder); len(events) != 1 || !strings.HasPrefix(events[0], "Warning LeftAlone ") {
		t.Errorf("events %v", events)
	}
}
