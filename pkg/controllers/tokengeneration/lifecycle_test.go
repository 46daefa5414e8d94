package tokengeneration

import (
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/testkit/fakeapi"
)

// lifecycle runs test with a controller, the namespace team and objects, in simulated time.
func lifecycle(t *testing.T, mode Mode, test func(*testing.T, *runningController), objects ...runtime.Object) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := startController(t, mode, append(objects, testkit.Namespace("team"))...)
		defer r.stop()
		test(t, r)
	})
}

func TestLifecycleWithModeAll(t *testing.T) {
	lifecycle(t, ModeAll, func(t *testing.T, r *runningController) {
		pass(9 * time.Second)
		if writes := r.writes(); !r.Ready() || len(writes) > 0 {
			t.Errorf("ready %t, %v", r.Ready(), writes)
		}
		r.expectWrites("start", "create team/robot-token-*", "patch team/robot")

		r.set(testkit.ServiceAccount("later/default"))
		r.expectWrites("an account whose namespace is not cached yet")
		r.set(testkit.Namespace("later"))
		r.expectWrites("its namespace is cached", "create later/default-token-*", "patch later/default")

		first := r.references("later/default")
		r.remove(testkit.Secret("later/" + first[0]))
		r.expectWrites("its token secret is deleted", "create later/default-token-*", "patch later/default")
		second := r.references("later/default")
		if len(second) != 2 || second[0] != first[0] || second[1] == first[0] {
			t.Errorf("refers to %q after %q", second, first)
		}

		r.set(testkit.ServiceAccount("later/default"))
		r.expectWrites("a user removes its references", "patch later/default")
		if diff := cmp.Diff(second[1:], r.references("later/default")); diff != "" {
			t.Errorf("references (-want +got):\n%s", diff)
		}
		r.remove(testkit.ServiceAccount("later/default"))
		r.expectWrites("the account is deleted")
	}, testkit.Namespace("leaving", testkit.Terminating()), testkit.ServiceAccount("leaving/default"),
		robot(createdLongAgo), testkit.ServiceAccount("team/right", testkit.WithReferences("s")), testkit.Secret("team/s", testkit.WithAccount("right"), testkit.WithData("token", "t")))
}

func TestLifecycleWithModeLabelled(t *testing.T) {
	lifecycle(t, ModeLabelled, func(_ *testing.T, r *runningController) {
		r.expectWrites("start", "create team/enabled-token-*", "patch team/enabled")
		r.set(testkit.Namespace("team", testkit.WithLabel("app", "ci")))
		r.expectWrites("the namespace gets an unrelated label")
		r.set(testkit.Namespace("team", labelled("true")))
		r.expectWrites("the namespace enables tokens", "create team/unlabelled-token-*", "patch team/unlabelled")
		r.set(testkit.ServiceAccount("team/disabled"))
		r.expectWrites("an account no longer disables tokens", "create team/disabled-token-*", "patch team/disabled")
	}, testkit.ServiceAccount("team/enabled", labelled("true")), testkit.ServiceAccount("team/disabled", labelled("false")), testkit.ServiceAccount("team/unlabelled"))
}

func TestATokenThatHadToWaitIsWrittenWhenTokensMayBeWritten(t *testing.T) {
	lifecycle(t, ModeAll, func(_ *testing.T, r *runningController) {
		r.tokens.paused.Store(true)
		r.set(robot())
		r.expectWrites("while no tokens may be written")
		r.tokens.paused.Store(false)
		r.EnqueueAll()
		r.expectWrites("after the check", "create team/robot-token-*", "patch team/robot")
	})
}

// TestAnAccountThatIsWrittenBeforeItsSecret does what tools that restore a namespace do:
// they write the reference first.
func TestAnAccountThatIsWrittenBeforeItsSecret(t *testing.T) {
	lifecycle(t, ModeAll, func(_ *testing.T, r *runningController) {
		synctest.Wait()
		r.set(robot(testkit.WithReferences("robot-token-bbbbb")))
		pass(4 * time.Second)
		r.set(tokenSecret("robot-token-bbbbb"))
		r.expectWrites("its secret is created")
	})
}

func TestRejectedReferencesCauseOneEventAndOneSecret(t *testing.T) {
	lifecycle(t, ModeAll, func(t *testing.T, r *runningController) {
		var dryRuns atomic.Int32
		r.server.Inject(rejectReferences(&dryRuns))
		r.set(robot())
		pass(time.Hour)
		if n := dryRuns.Load(); n < 10 {
			t.Errorf("%d dry runs in an hour", n)
		}
		if events := testkit.Events(r.recorder); len(events) != 1 {
			t.Errorf("want one event, got %q", events)
		}
		created := slices.DeleteFunc(r.writes(), func(write string) bool { return write != "create team/robot-token-*" })
		if left := fakeapi.List[corev1.Secret](r.server, "team"); len(created) != 1 || len(left) != 0 {
			t.Errorf("created %d secrets, left %v", len(created), left)
		}
		r.server.Inject(nil)
		pass(time.Hour)
		if secrets := fakeapi.List[corev1.Secret](r.server, "team"); len(secrets) != 1 || !slices.Equal([]string{secrets[0].Name}, r.references("team/robot")) {
			t.Errorf("after references are allowed again, there are %v", secrets)
		}
	})
}

func TestAReferenceThatReplacesOfItsAccountRemoveThirtyTimesIsBackSoonAfterTheLast(t *testing.T) {
	lifecycle(t, ModeAll, func(t *testing.T, r *runningController) {
		r.set(robot())
		r.expectWrites("start", "create team/robot-token-*", "patch team/robot")
		before := r.references("team/robot")
		for range 30 {
			pass(time.Second)
			r.set(robot())
		}
		pass(10 * time.Second)
		if diff := cmp.Diff(before, r.references("team/robot")); diff != "" {
			t.Errorf("references (-want +got):\n%s", diff)
		}
	})
}

func TestNothingIsDoneBeforeAllCachesAreSynced(t *testing.T) {
	testkit.ExpectNeedsAllCaches(t, func(t *testing.T) (testkit.Controller, []toolscache.SharedIndexInformer) {
		r := newRunningController(t, ModeAll, testkit.Namespace("team"), robot())
		return r, []toolscache.SharedIndexInformer{r.cfg.Namespaces, r.cfg.Secrets, r.cfg.ServiceAccounts}
	})
}
