package serviceaccount

import (
	"context"
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

	"github.com/sakeeper/sakeeper/pkg/testkit"
)

func TestARejectionIsOneEventHoweverOftenItIsRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, testkit.QuotaExceeded(), testkit.Namespace("team"))
		defer testkit.Start(testkit.Context(t), t, func(ctx context.Context) error { return f.queue.Run(ctx) })()
		f.queue.Add(toolscache.ObjectName{Namespace: "team", Name: "default"})
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
		c := newController(t, fake.NewClientset(testkit.Namespace("team")), record.NewFakeRecorder(100))
		return c, []toolscache.SharedIndexInformer{c.cfg.Namespaces, c.cfg.ServiceAccounts}
	})
}

// TestLife runs the controller with its informers against a fake API server.
func TestLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := testkit.Context(t)
		client := fake.NewClientset(testkit.Namespace("before"), testkit.Namespace("leaving", testkit.Terminating()), testkit.ServiceAccount("before/robot"))
		client.PrependReactor("create", "serviceaccounts", func(action clienttesting.Action) (bool, runtime.Object, error) {
			return action.GetNamespace() == "lagging", &corev1.ServiceAccount{}, nil // created, without an event
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
			synctest.Wait() // so that the controller sees the changes in this order
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
		expectWrites("namespace deleted and created again, and the watch missed it", createRequest("leaving/default"), createRequest("leaving/robot"))
		time.Sleep(lookAgain)
		expectWrites("the watch of accounts has missed two, which may have been deleted", createRequest("lagging/default"), createRequest("lagging/robot"))
	})
}
