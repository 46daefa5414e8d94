package tokenreferences

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	metadatafake "k8s.io/client-go/metadata/fake"
	clienttesting "k8s.io/client-go/testing"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/testkit"
)

func TestNewRefusesAnIncompleteConfig(t *testing.T) {
	testkit.ExpectRequired(t, newFixture(t, apiServer{}).cfg, New, "ConfirmLive", "Workers", "Registerer")
}

func TestNothingIsSyncedBeforeAllCachesAre(t *testing.T) {
	testkit.ExpectNeedsAllCaches(t, func(t *testing.T) (testkit.Controller, []toolscache.SharedIndexInformer) {
		r := newRunningController(t)
		return r, []toolscache.SharedIndexInformer{r.cfg.Secrets, r.cfg.ServiceAccounts}
	})
}

func TestRunReturnsAfterItsLastRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, apiServer{}, robot("robot-token-x7z9q"))
		f.metadata.PrependReactor("get", "*", func(clienttesting.Action) (bool, runtime.Object, error) {
			time.Sleep(time.Minute)
			return true, nil, errBoom
		})
		f.queue.Add(objectName("team/robot"))
		stop := testkit.Start(testkit.Context(t), t, f.runQueue)
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
	stop   func()
}

func newRunningController(t *testing.T, objects ...runtime.Object) *runningController {
	t.Helper()
	r := &runningController{t: t, ctx: testkit.Context(t), client: fake.NewClientset(objects...)}
	meta := &metadatafake.FakeMetadataClient{}
	meta.AddReactor("*", "*", apiServer{}.react) // a Secret that is not cached does not exist
	r.Controller = newController(t, r.client, meta, record.NewFakeRecorder(100), clock.RealClock{})
	return r
}

func startController(t *testing.T, objects ...runtime.Object) *runningController {
	t.Helper()
	r := newRunningController(t, objects...)
	r.stop = testkit.Start(r.ctx, t, r.Run, testkit.Informer(r.cfg.Secrets), testkit.Informer(r.cfg.ServiceAccounts))
	return r
}

func secrets() schema.GroupVersionResource { return corev1.SchemeGroupVersion.WithResource("secrets") }

func accounts() schema.GroupVersionResource {
	return corev1.SchemeGroupVersion.WithResource("serviceaccounts")
}

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

func filledSecret(name string) *corev1.Secret {
	return testkit.Secret(name, testkit.WithAccount("robot"), testkit.WithAccountUID(testkit.AccountUID),
		testkit.WithData("token", "t"), testkit.WithData("namespace", "team"), testkit.WithData("ca.crt", string(testkit.Bundle().PEM())))
}

func TestLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startController(t, robot("s", "robot-token-x7z9q", "meant-for-later"), filledSecret("team/s"),
			testkit.ServiceAccount("team/old", testkit.WithReferences("old-token-x7z9q")))
		defer r.stop()
		r.expectRequests("deletions from the time when no controller ran", "patch serviceaccounts team/robot", "patch serviceaccounts team/old")
		if !r.Ready() {
			t.Error("not ready")
		}

		r.must(r.client.Tracker().Delete(secrets(), "team", "s"))
		r.expectRequests("a secret is deleted", "patch serviceaccounts team/robot")
		account, err := r.client.CoreV1().ServiceAccounts("team").Get(r.ctx, "robot", metav1.GetOptions{})
		r.must(err)
		if diff := cmp.Diff(robot("meant-for-later").Secrets, account.Secrets); diff != "" {
			t.Errorf("references (-want +got):\n%s", diff)
		}
		r.client.ClearActions()

		r.must(r.client.Tracker().Create(secrets(), filledSecret("team/another"), "team"))
		r.must(r.client.Tracker().Delete(accounts(), "team", "robot"))
		r.must(r.client.Tracker().Delete(secrets(), "team", "another"))
		r.expectRequests("the account is deleted, and a secret after it")
		time.Sleep(memory)
		synctest.Wait()
		expectNothingRemembered(t, r.deletions)
	})
}

// The Secret of a deleted account must not cause a live GET of its successor.
func TestASecretOfADeletedAccountCostsItsSuccessorNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startController(t, robot(), filledSecret("team/s"))
		defer r.stop()
		r.expectRequests("start")
		r.must(r.client.Tracker().Update(accounts(), testkit.ServiceAccount("team/robot", testkit.WithUID(testkit.OtherUID)), "team"))
		r.must(r.client.Tracker().Delete(secrets(), "team", "s"))
		r.expectRequests("the account was replaced, and the secret of the former one is deleted")
		expectNothingRemembered(t, r.deletions)
	})
}

// Tools that restore a namespace may write the account, with its references, before the Secret.
func TestAnAccountThatIsWrittenBeforeItsSecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startController(t, testkit.ServiceAccount("team/old", testkit.WithReferences("old-token-x7z9q")))
		defer r.stop()
		if synctest.Wait(); len(r.client.Actions()) != 5 || !r.Ready() { // two lists, two watches, one patch
			t.Errorf("accounts that exist at the start must be handled at once: ready %t, %v", r.Ready(), r.client.Actions())
		}
		r.expectRequests("start", "patch serviceaccounts team/old")
		r.must(r.client.Tracker().Create(accounts(), robot("robot-token-x7z9q"), "team"))
		time.Sleep(4 * time.Second)
		r.must(r.client.Tracker().Create(secrets(), testkit.Secret("team/robot-token-x7z9q", testkit.WithAccount("robot")), "team"))
		r.expectRequests("the secret is created in time")
		r.must(r.client.Tracker().Update(accounts(), robot("robot-token-x7z9q", "robot-token-bcdfg"), "team"))
		r.expectRequests("another is not", "patch serviceaccounts team/robot")
	})
}

func TestManyDeletionsAreOneWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var names []string
		var objects []runtime.Object
		for i := range 200 {
			names = append(names, fmt.Sprintf("mine-%d", i))
			objects = append(objects, filledSecret("team/"+names[i]))
		}
		r := startController(t, append(objects, robot(names...))...)
		defer r.stop()
		r.expectRequests("start")
		for i, name := range names {
			r.must(r.client.Tracker().Delete(secrets(), "team", name))
			if i%20 == 19 {
				time.Sleep(batchWindow - time.Millisecond)
			}
		}
		r.expectRequests("200 secrets are deleted within half a second", "patch serviceaccounts team/robot")
	})
}

func TestAReferenceThatIsReplacedThirtyTimesIsRemovedSoonAfterTheLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startController(t, robot("robot-token-x7z9q"))
		defer r.stop()
		for range 30 {
			time.Sleep(time.Second)
			r.must(r.client.Tracker().Update(accounts(), robot("robot-token-x7z9q"), "team"))
		}
		time.Sleep(grace + 10*time.Second)
		synctest.Wait()
		account, err := r.client.CoreV1().ServiceAccounts("team").Get(r.ctx, "robot", metav1.GetOptions{})
		if err != nil || len(account.Secrets) > 0 {
			t.Errorf("references %v, error %v", account.Secrets, err)
		}
	})
}
