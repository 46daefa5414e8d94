package rootca

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"

	"github.com/sakeeper/sakeeper/pkg/cabundle"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

func TestARejectionIsOneEventHoweverOftenItIsRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, testkit.Invalid("data", "redacted"), testkit.Namespace("team"), configMap(testkit.WithData("ca.crt", "wrong")))
		defer testkit.Start(testkit.Context(t), t, func(ctx context.Context) error { return f.queue.Run(ctx) })()
		f.queue.Add("team")
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := len(f.client.Actions()); n < 10 {
			t.Errorf("%d attempts in an hour", n)
		}
		if events := testkit.Events(f.recorder); len(events) != 1 {
			t.Errorf("want one event, got %q", events)
		}
	})
}

func TestNothingIsDoneBeforeAllCachesAreSynced(t *testing.T) {
	testkit.ExpectNeedsAllCaches(t, func(t *testing.T) (testkit.Controller, []toolscache.SharedIndexInformer) {
		c := newController(t, fake.NewClientset(testkit.Namespace("team")), record.NewFakeRecorder(100), testkit.Bundle)
		return c, []toolscache.SharedIndexInformer{c.cfg.Namespaces, c.cfg.RootCAs}
	})
}

// TestLife runs the controller with its informers against a fake API server.
func TestLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := testkit.Context(t)
		client := fake.NewClientset(testkit.Namespace("team"), testkit.Namespace("before"), testkit.Namespace("leaving", testkit.Terminating()), configMap())
		client.PrependReactor("create", "configmaps", func(action clienttesting.Action) (bool, runtime.Object, error) {
			return action.GetNamespace() == "lagging", &corev1.ConfigMap{}, nil // created, without an event
		})
		var ca atomic.Pointer[cabundle.Bundle]
		first, second := testkit.Bundle(), testkit.OtherBundle()
		ca.Store(&first)
		c := newController(t, client, record.NewFakeRecorder(100), func() cabundle.Bundle { return *ca.Load() })
		defer testkit.Start(ctx, t, c.Run)()
		if synctest.Wait(); c.Ready() {
			t.Error("ready before its caches")
		}
		defer testkit.Start(ctx, t, testkit.Informer(c.cfg.Namespaces), testkit.Informer(c.cfg.RootCAs))()

		// expectWrites compares the writes since its last call.
		expectWrites := func(step string, want ...string) {
			t.Helper()
			time.Sleep(time.Second)
			synctest.Wait()
			var got []string
			for _, r := range testkit.Requests(client.Actions()) {
				if r.Resource == "configmaps" && (r.Verb == "create" || r.Verb == "update" || r.Verb == "patch") {
					got = append(got, r.Verb+" "+r.Name)
				}
			}
			client.ClearActions()
			if diff := cmp.Diff(want, got, cmpopts.SortSlices(func(a, b string) bool { return a < b })); diff != "" {
				t.Errorf("%s (-want +got):\n%s", step, diff)
			}
		}
		must := func(_ any, err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait() // so that the controller sees the changes in this order
		}

		expectWrites("start", "create before/kube-root-ca.crt")
		if !c.Ready() {
			t.Error("not ready")
		}
		must(client.CoreV1().Namespaces().Create(ctx, testkit.Namespace("later"), metav1.CreateOptions{}))
		expectWrites("new namespace", "create later/kube-root-ca.crt")
		must(nil, client.CoreV1().ConfigMaps("later").Delete(ctx, "kube-root-ca.crt", metav1.DeleteOptions{}))
		expectWrites("deleted", "create later/kube-root-ca.crt")
		must(nil, client.Tracker().Update(corev1.SchemeGroupVersion.WithResource("configmaps"), configMap(testkit.WithData("ca.crt", "wrong")), "team"))
		expectWrites("changed", "update team/kube-root-ca.crt")
		must(client.CoreV1().Namespaces().Create(ctx, testkit.Namespace("lagging"), metav1.CreateOptions{}))
		expectWrites("new namespace, the watch of config maps lags", "create lagging/kube-root-ca.crt")
		must(client.CoreV1().Namespaces().Update(ctx, testkit.Namespace("lagging", testkit.WithLabel("app", "ci")), metav1.UpdateOptions{}))
		expectWrites("its label changed")
		time.Sleep(lookAgain)
		expectWrites("the watch of config maps has missed one, which may have been deleted", "create lagging/kube-root-ca.crt")
		must(client.CoreV1().Namespaces().Update(ctx, testkit.Namespace("lagging", testkit.Terminating()), metav1.UpdateOptions{}))
		expectWrites("it is terminating")

		c.EnqueueAll()
		expectWrites("everything is queued, and correct")
		ca.Store(&second)
		c.EnqueueAll()
		expectWrites("the CA changed", "update before/kube-root-ca.crt", "update later/kube-root-ca.crt", "update team/kube-root-ca.crt")
		c.EnqueueAll()
		expectWrites("and nothing is written twice")
	})
}

// undoneController is a running controller whose writes another client undoes.
type undoneController struct {
	t      *testing.T
	ctx    context.Context
	client *fake.Clientset
	// writes are the times of the writes to the ConfigMap.
	writes []time.Time
}

// startUndone starts a controller that sees each of its updates undone if undo is true.
func startUndone(t *testing.T, undo bool) (u *undoneController, stop func()) {
	t.Helper()
	u = &undoneController{t: t, ctx: testkit.Context(t), client: fake.NewClientset(testkit.Namespace("team"), configMap())}
	u.client.PrependReactor("update", "configmaps", func(clienttesting.Action) (bool, runtime.Object, error) {
		u.writes = append(u.writes, time.Now())
		if undo {
			u.change()
		}
		return undo, &corev1.ConfigMap{}, nil
	})
	c := newController(t, u.client, record.NewFakeRecorder(100), testkit.Bundle)
	stop = testkit.Start(u.ctx, t, c.Run, testkit.Informer(c.cfg.Namespaces), testkit.Informer(c.cfg.RootCAs))
	synctest.Wait()
	return u, stop
}

// change writes another CA to the ConfigMap.
func (u *undoneController) change() {
	theirs := configMap(testkit.WithData("ca.crt", "theirs"))
	if err := u.client.Tracker().Update(corev1.SchemeGroupVersion.WithResource("configmaps"), theirs, "team"); err != nil {
		u.t.Error(err)
	}
}

func TestAConfigMapThatAUserChangesTenTimesInAMinuteIsRightSoonAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u, stop := startUndone(t, false)
		defer stop()
		for range 10 {
			time.Sleep(6 * time.Second)
			u.change()
			synctest.Wait()
		}
		time.Sleep(20 * time.Second)
		synctest.Wait()
		found, err := u.client.CoreV1().ConfigMaps("team").Get(u.ctx, "kube-root-ca.crt", metav1.GetOptions{})
		if err != nil || found.Data["ca.crt"] != string(testkit.Bundle().PEM()) {
			t.Errorf("20 s after the last change: %v, error %v", found.Data, err)
		}
		if len(u.writes) != 10 {
			t.Errorf("repaired %d times", len(u.writes))
		}
	})
}

func TestATwinWithAnotherCACostsAtMostThirtyWritesInAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u, stop := startUndone(t, true)
		defer stop()
		u.change()
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(u.writes) < 20 || len(u.writes) > 30 {
			t.Errorf("%d writes in an hour", len(u.writes))
		}
		if last := u.writes[len(u.writes)-1]; time.Since(last) > 5*time.Minute {
			t.Errorf("the last write was %v ago", time.Since(last))
		}
	})
}
