package rootca

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/cabundle"
	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/internal/workqueue"
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
		return true, &corev1.ConfigMap{}, answer
	})
	f.Controller = newController(t, f.client, f.recorder, testkit.Bundle)
	for _, obj := range cached {
		var err error
		if cm, ok := obj.(*corev1.ConfigMap); ok {
			err = f.cfg.RootCAs.GetStore().Add(cache.NewRootCA(cm))
		} else {
			err = f.cfg.Namespaces.GetStore().Add(obj)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func newController(t *testing.T, client *fake.Clientset, recorder record.EventRecorder, ca func() cabundle.Bundle) *Controller {
	t.Helper()
	cfg := Config{Client: client.CoreV1(), CA: ca, Recorder: recorder, Clock: clock.RealClock{}}
	var errNamespaces, errRootCAs error
	cfg.Namespaces, errNamespaces = cache.Namespaces(client)
	cfg.RootCAs, errRootCAs = cache.RootCAs(client)
	c, err := New(cfg)
	if err := errors.Join(errNamespaces, errRootCAs, err); err != nil {
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

// configMap is team/kube-root-ca.crt as it should be, less what opts change.
func configMap(opts ...testkit.Option) *corev1.ConfigMap {
	return testkit.ConfigMap("team/kube-root-ca.crt", append([]testkit.Option{
		testkit.WithData("ca.crt", string(testkit.Bundle().PEM())), testkit.WithAnnotation("kubernetes.io/description", Description),
	}, opts...)...)
}

func createRequest(namespace string, ca cabundle.Bundle) testkit.Request {
	return testkit.Request{
		Verb: "create", Resource: "configmaps", Name: namespace + "/kube-root-ca.crt",
		Body: &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: namespace, Name: "kube-root-ca.crt",
				Annotations: map[string]string{"kubernetes.io/description": "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters."},
			},
			Data: map[string]string{"ca.crt": string(ca.PEM())},
		},
	}
}

// updateRequest is the repair of configMap(), with what opts add to that.
func updateRequest(opts ...testkit.Option) testkit.Request {
	return testkit.Request{Verb: "update", Resource: "configmaps", Name: "team/kube-root-ca.crt", Body: configMap(opts...)}
}

// patchRequest is the repair of one that has more than is cached; the keys are those that
// go.
func patchRequest(keys ...string) testkit.Request {
	metadata := map[string]any{
		"uid": string(testkit.ConfigMapUID), "resourceVersion": testkit.ResourceVersion,
		"annotations": map[string]any{"kubernetes.io/description": Description},
	}
	data := map[string]any{"ca.crt": string(testkit.Bundle().PEM())}
	for _, key := range keys {
		data[key] = nil
	}
	return testkit.Request{
		Verb: "patch", Resource: "configmaps", Name: "team/kube-root-ca.crt",
		Body: map[string]any{"metadata": metadata, "data": data},
	}
}

func TestSync(t *testing.T) {
	cases := map[string]struct {
		inCached []metav1.Object
		want     []testkit.Request
	}{
		"a missing config map is one create": {
			inCached: []metav1.Object{testkit.Namespace("team")},
			want:     []testkit.Request{createRequest("team", testkit.Bundle())},
		},
		"that of another namespace does not count": {
			inCached: []metav1.Object{testkit.Namespace("team"), testkit.ConfigMap("other/kube-root-ca.crt")},
			want:     []testkit.Request{createRequest("team", testkit.Bundle())},
		},
		"one that is right is left alone": {
			inCached: []metav1.Object{testkit.Namespace("team"), configMap()},
		},
		"also with a description of somebody else": {
			inCached: []metav1.Object{testkit.Namespace("team"), configMap(testkit.WithAnnotation("kubernetes.io/description", "ours"))},
		},
		"nothing is created in a terminating namespace": {
			inCached: []metav1.Object{testkit.Namespace("team", testkit.Terminating())},
		},
		"nor in one that is gone": {},
		"a wrong CA is one update": {
			inCached: []metav1.Object{testkit.Namespace("team"), configMap(testkit.WithData("ca.crt", "wrong"))},
			want:     []testkit.Request{updateRequest()},
		},
		"other keys are removed": {
			inCached: []metav1.Object{testkit.Namespace("team"), configMap(testkit.WithData("extra", "1"), testkit.WithData("more", "2"))},
			want:     []testkit.Request{updateRequest()},
		},
		"a missing description is added": {
			inCached: []metav1.Object{testkit.Namespace("team"), configMap(testkit.WithAnnotation("kubernetes.io/description", ""))},
			want:     []testkit.Request{updateRequest()},
		},
		"an empty one gets everything": {
			inCached: []metav1.Object{testkit.Namespace("team"), testkit.ConfigMap("team/kube-root-ca.crt")},
			want:     []testkit.Request{updateRequest()},
		},
		"labels and settings stay": {
			inCached: []metav1.Object{testkit.Namespace("team"), configMap(testkit.WithData("ca.crt", "wrong"), testkit.WithLabel("app", "ci"), testkit.WithAnnotation("sakeeper.io/keep", "true"))},
			want:     []testkit.Request{updateRequest(testkit.WithLabel("app", "ci"), testkit.WithAnnotation("sakeeper.io/keep", "true"))},
		},
		"what is not cached stays: the repair is a patch": {
			inCached: []metav1.Object{testkit.Namespace("team"), configMap(testkit.WithData("ca.crt", "wrong"), testkit.WithAnnotation("mine", "yes"))},
			want:     []testkit.Request{patchRequest()},
		},
		"also where keys are removed": {
			inCached: []metav1.Object{testkit.Namespace("team"), configMap(testkit.WithData("extra", "1"), testkit.WithData("more", "2"), testkit.WithAnnotation("mine", "yes"))},
			want:     []testkit.Request{patchRequest("extra", "more")},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, nil, tc.inCached...)
			again, err := f.sync(newContext(t), "team")
			if again != 0 || err != nil {
				t.Errorf("again after %v, error %v", again, err)
			}
			if diff := cmp.Diff(tc.want, testkit.Requests(f.client.Actions())); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAnswers(t *testing.T) {
	toCreate := []metav1.Object{testkit.Namespace("team")}
	toRepair := []metav1.Object{testkit.Namespace("team"), configMap(testkit.WithData("ca.crt", "wrong"))}
	internal, quota, immutable := testkit.InternalError(), testkit.QuotaExceeded(), testkit.Invalid("data", "redacted")
	event := func(err error, doing string) []string {
		return []string{"Warning FailedPublishRootCA The API server refuses to " + doing + " config map team/kube-root-ca.crt: " + err.Error() + " involvedObject{kind=Namespace,apiVersion=v1}"}
	}

	cases := map[string]struct {
		inCached   []metav1.Object
		inAnswer   error
		wantErr    error
		wantText   string
		wantEvents []string
	}{
		"create: somebody was faster":             {inCached: toCreate, inAnswer: testkit.AlreadyExists()},
		"create: the namespace went":              {inCached: toCreate, inAnswer: testkit.NotFound()},
		"create: the namespace is on its way out": {inCached: toCreate, inAnswer: testkit.NamespaceTerminating()},
		"create: a quota is told to people":       {inCached: toCreate, inAnswer: quota, wantErr: quota, wantText: "create config map team/kube-root-ca.crt: ", wantEvents: event(quota, "create")},
		"create: an internal error is not":        {inCached: toCreate, inAnswer: internal, wantErr: internal, wantText: "create config map team/kube-root-ca.crt: "},
		"repair: it changed":                      {inCached: toRepair, inAnswer: testkit.Conflict()},
		"repair: it went":                         {inCached: toRepair, inAnswer: testkit.NotFound()},
		"repair: immutability is told to people":  {inCached: toRepair, inAnswer: immutable, wantErr: immutable, wantText: "update config map team/kube-root-ca.crt: ", wantEvents: event(immutable, "update")},
		"repair: so is a prohibition":             {inCached: toRepair, inAnswer: quota, wantErr: quota, wantText: "update config map team/kube-root-ca.crt: ", wantEvents: event(quota, "update")},
		"repair: an internal error is not":        {inCached: toRepair, inAnswer: internal, wantErr: internal, wantText: "update config map team/kube-root-ca.crt: "},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, tc.inAnswer, tc.inCached...)
			_, err := f.sync(newContext(t), "team")
			if !errors.Is(err, tc.wantErr) || (tc.wantErr == nil) != (err == nil) {
				t.Errorf("error %v, want %v", err, tc.wantErr)
			}
			if err != nil && err.Error() != tc.wantText+tc.inAnswer.Error() {
				t.Errorf("error %q", err)
			}
			if n := len(f.client.Actions()); n != 1 {
				t.Errorf("%d requests, want 1", n)
			}
			if diff := cmp.Diff(tc.wantEvents, testkit.Events(f.recorder)); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
		})
	}
}

func TestNewRefusesAnIncompleteConfig(t *testing.T) {
	complete := newFixture(t, nil).cfg
	cases := map[string]func(*Config){
		"no client":     func(c *Config) { c.Client = nil },
		"no namespaces": func(c *Config) { c.Namespaces = nil },
		"no root CAs":   func(c *Config) { c.RootCAs = nil },
		"no CA":         func(c *Config) { c.CA = nil },
		"no recorder":   func(c *Config) { c.Recorder = nil },
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

// What is cached stays as it is here: whatever is written, somebody undoes.
func TestACAThatIsUndoneFiveTimesIsLeftAlone(t *testing.T) {
	cases := map[string][]metav1.Object{
		"update team/kube-root-ca.crt": {testkit.Namespace("team"), configMap(testkit.WithData("ca.crt", "theirs"))},
		"create team/kube-root-ca.crt": {testkit.Namespace("team")},
	}
	for want, cached := range cases {
		t.Run(want, func(t *testing.T) {
			f := newFixture(t, nil, cached...)
			var again time.Duration
			for range 10 {
				var err error
				if again, err = f.sync(newContext(t), "team"); err != nil {
					t.Fatal(err)
				}
			}
			var writes []string
			for _, r := range testkit.Requests(f.client.Actions()) {
				writes = append(writes, r.Verb+" "+r.Name)
			}
			if diff := cmp.Diff(slices.Repeat([]string{want}, 5), writes); diff != "" {
				t.Errorf("writes (-want +got):\n%s", diff)
			}
			if again <= 0 || again > time.Hour {
				t.Errorf("looks again after %v", again)
			}
			if events := testkit.Events(f.recorder); len(events) != 1 || !strings.HasPrefix(events[0], "Warning LeftAlone ") {
				t.Errorf("events %v", events)
			}
		})
	}
}

func TestANewCAIsPaced(t *testing.T) {
	f := newFixture(t, nil)
	const n = repairsAtOnce + 100
	later := 0
	for i := range n {
		name := fmt.Sprint("team", i)
		old := configMap(testkit.WithData("ca.crt", "old"))
		old.Namespace = name
		if err := errors.Join(f.cfg.Namespaces.GetStore().Add(testkit.Namespace(name)), f.cfg.RootCAs.GetStore().Add(cache.NewRootCA(old))); err != nil {
			t.Fatal(err)
		}
		again, err := f.sync(newContext(t), namespaceKey(name))
		if err != nil && !errors.Is(err, workqueue.ErrRequeueLater) {
			t.Fatal(err)
		}
		if again > 0 {
			later++
		}
	}
	// Slots come back while the test runs.
	if writes := len(f.client.Actions()); writes < repairsAtOnce || writes+later != n {
		t.Errorf("%d writes, %d put off, of %d", writes, later, n)
	}
}

// A CA that comes, goes and comes again is no burst: turns that nobody needs any more are
// given back.
func TestTurnsAreGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil)
		const n = repairsAtOnce + 100
		for i := range n {
			right := configMap()
			right.Namespace = fmt.Sprint("team", i)
			if err := errors.Join(f.cfg.Namespaces.GetStore().Add(testkit.Namespace(right.Namespace)), f.cfg.RootCAs.GetStore().Add(cache.NewRootCA(right))); err != nil {
				t.Fatal(err)
			}
		}
		for _, step := range []struct {
			ca   cabundle.Bundle
			want int
		}{{testkit.OtherBundle(), repairsAtOnce}, {testkit.Bundle(), 0}, {testkit.OtherBundle(), repairsAtOnce}} {
			f.client.ClearActions()
			f.cfg.CA = func() cabundle.Bundle { return step.ca }
			for i := range n {
				if _, err := f.sync(t.Context(), namespaceKey(fmt.Sprint("team", i))); err != nil && !errors.Is(err, workqueue.ErrRequeueLater) {
					t.Fatal(err)
				}
			}
			if got := len(f.client.Actions()); got != step.want {
				t.Errorf("%d writes at once, want %d", got, step.want)
			}
			time.Sleep(time.Hour)
		}
	})
}

// A webhook or a quota may answer with a conflict too, and no event follows that.
func TestAConflictIsLookedAtAgain(t *testing.T) {
	f := newFixture(t, testkit.Conflict(), testkit.Namespace("team"), configMap(testkit.WithData("ca.crt", "old")))
	if again, err := f.sync(newContext(t), "team"); again != time.Second || err != nil {
		t.Errorf("again after %v, error %v", again, err)
	}
}
