package serviceaccount

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/internal/writebackoff"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/testkit/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

// fixture is a controller whose caches the test fills and whose writes all get the same
// response.
type fixture struct {
	*Controller
	client   *fake.Clientset
	recorder *record.FakeRecorder
}

func newFixture(t *testing.T, response error, cached ...metav1.Object) fixture {
	t.Helper()
	f := fixture{client: &fake.Clientset{}, recorder: record.NewFakeRecorder(100)}
	f.recorder.IncludeObject = true
	f.client.AddReactor("*", "*", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, &corev1.ServiceAccount{}, response
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
	cfg := Config{Client: client.CoreV1(), Names: []string{"default", "robot"}, Recorder: recorder, Clock: clock.RealClock{}, Workers: 10}
	var errNamespaces, errAccounts, err error
	cfg.Namespaces, errNamespaces = cache.Namespaces(client)
	cfg.ServiceAccounts, errAccounts = cache.ServiceAccounts(client)
	c, err := New(cfg)
	if err := errors.Join(errNamespaces, errAccounts, err); err != nil {
		t.Fatal(err)
	}
	testkit.EndQueue(t, c)
	return c
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
		inResponse error
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
		"an account that is being deleted is left alone": {
			inCached: []metav1.Object{testkit.Namespace("team"), testkit.ServiceAccount("team/default", testkit.Deleting())},
		},
		"nothing is written into a terminating namespace": {
			inCached: []metav1.Object{testkit.Namespace("team", testkit.Terminating())},
		},
		"nothing is written into a namespace that does not exist": {},
		"another client created it first": {
			inCached:   []metav1.Object{testkit.Namespace("team")},
			inResponse: testkit.AlreadyExists(),
			want:       create,
		},
		"the namespace was deleted": {
			inCached:   []metav1.Object{testkit.Namespace("team")},
			inResponse: testkit.NotFound(),
			want:       create,
		},
		"the namespace is terminating": {
			inCached:   []metav1.Object{testkit.Namespace("team")},
			inResponse: testkit.NamespaceTerminating(),
			want:       create,
		},
		"a rejection by a quota is an event": {
			inCached:   []metav1.Object{testkit.Namespace("team")},
			inResponse: quota,
			want:       create,
			wantErr:    quota,
			wantEvents: event(quota),
		},
		"an internal error is no event": {
			inCached:   []metav1.Object{testkit.Namespace("team")},
			inResponse: internal,
			want:       create,
			wantErr:    internal,
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, tc.inResponse, tc.inCached...)
			requeueAfter, err := f.sync(testkit.Context(t), toolscache.ObjectName{Namespace: "team", Name: "default"})
			if !errors.Is(err, tc.wantErr) || (tc.wantErr == nil) != (err == nil) {
				t.Errorf("error %v, want %v", err, tc.wantErr)
			}
			wantRequeue := time.Duration(0)
			if tc.want != nil && tc.wantErr == nil {
				wantRequeue = lookAgain
			}
			if requeueAfter != wantRequeue {
				t.Errorf("requeued after %v, want %v", requeueAfter, wantRequeue)
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
	_, err := f.sync(testkit.Context(t), toolscache.ObjectName{Namespace: "team", Name: "default"})
	if want := "create service account team/default: " + testkit.InternalError().Error(); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestNewRefusesAnIncompleteConfig(t *testing.T) {
	testkit.ExpectRequired(t, newFixture(t, nil).cfg, New, "Workers", "Registerer")
}

// The cache never shows the account, as if another client deleted it after every create.
func TestAnAccountThatIsDeletedAgainIsCreatedEverMoreSlowly(t *testing.T) {
	f := newFixture(t, nil, testkit.Namespace("team"))
	clock := clocktesting.NewFakePassiveClock(testkit.Instant())
	f.backoff = writebackoff.New[objectKey]("serviceaccounts", clock, nil)
	writes := func() int { return len(f.client.Actions()) }
	testkit.ExpectWriteBackoff(t, clock, writes, func() time.Duration {
		requeueAfter, err := f.sync(testkit.Context(t), toolscache.ObjectName{Namespace: "team", Name: "default"})
		if err != nil {
			t.Fatal(err)
		}
		return requeueAfter
	})
	before := writes()
	if _, err := f.sync(testkit.Context(t), toolscache.ObjectName{Namespace: "team", Name: "robot"}); err != nil || writes() != before+1 {
		t.Errorf("another account: %v, %d writes", err, writes()-before)
	}
	if events := testkit.Events(f.recorder); len(events) != 1 || !strings.HasPrefix(events[0], "Warning LeftAlone ") {
		t.Errorf("events %v", events)
	}
}
