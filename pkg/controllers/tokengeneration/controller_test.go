package tokengeneration

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	clienttesting "k8s.io/client-go/testing"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/sakeeper/sakeeper/pkg/internal/workqueue"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/testkit/fakeapi"
)

func TestNewChecksItsConfig(t *testing.T) {
	server := fakeapi.New()
	complete := newConfig(t, server, server.Metadata)
	testkit.ExpectRequired(t, complete, New, "Mode", "ConfirmLive", "Workers", "Registerer")
	for _, mode := range []Mode{"", ModeNone, "some"} {
		complete.Mode = mode
		if _, err := New(complete); err == nil || !strings.HasPrefix(err.Error(), Name+": ") {
			t.Errorf("mode %q: error %v", mode, err)
		}
	}
}

// expectSync syncs team/robot, and compares the delay until the next sync and the requests.
func (f fixture) expectSync(t *testing.T, what string, wantAgain time.Duration, want string) {
	t.Helper()
	again, err := f.syncAccount(t, "robot")
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if again != wantAgain {
		t.Errorf("%s: again after %v, want %v", what, again, wantAgain)
	}
	if diff := cmp.Diff(want, f.requests(t)); diff != "" {
		t.Errorf("%s: requests (-want +got):\n%s", what, diff)
	}
}

func TestAccountsOlderThanTheProcessWaitForEarlierRequests(t *testing.T) {
	f := newRobotFixture(t, robot())
	f.started = f.clock.Now()
	f.expectSync(t, "at the start", 10*time.Second, "")
	f.pass(9 * time.Second)
	f.expectSync(t, "later", time.Second, "")
	f.pass(time.Second)
	f.expectSync(t, "when earlier requests are over", 0, references)
}

// generate creates team/<account>, syncs it, and shows its Secret to the cache.
func (f fixture) generate(t *testing.T, account string) (again time.Duration) {
	t.Helper()
	obj := testkit.ServiceAccount("team/" + account)
	must(t, f.server.Tracker().Add(obj))
	f.cache(t, obj)
	again = f.mustSync(t, account)
	if name := f.plans.get(toolscache.ObjectName{Namespace: "team", Name: account}).secretName; name != "" {
		f.cache(t, fakeapi.Get[corev1.Secret](f.server, "team/"+name))
	}
	return again
}

func TestANamespaceIsListedUntilEarlierRequestsAreOver(t *testing.T) {
	f := newFixture(t, fakeapi.New())
	f.started = f.clock.Now().Add(-time.Second)
	expectLists := func(account string, want int) {
		t.Helper()
		f.generate(t, account)
		got := 0
		for _, action := range f.server.Requests() {
			if _, ok := action.(clienttesting.ListActionImpl); ok {
				got++
			}
		}
		if got != want {
			t.Errorf("account %s: %d lists, want %d", account, got, want)
		}
	}
	expectLists("first", 1)
	expectLists("right-after-the-start", 1)
	f.pass(9 * time.Second)
	expectLists("when-earlier-requests-are-over", 1)
	expectLists("after-that", 0)
}

func TestLargeClustersAreRateLimited(t *testing.T) {
	f := newFixture(t, fakeapi.New())
	waiting := map[time.Duration]int{}
	for i := range burst + 200 {
		waiting[f.generate(t, fmt.Sprint("a", i))]++
	}
	if waiting[0] != burst || waiting[10*time.Millisecond] != 1 || waiting[2*time.Second] != 1 {
		t.Errorf("%d were handled, %d wait for 10 ms, %d for 2 s", waiting[0], waiting[10*time.Millisecond], waiting[2*time.Second])
	}
	if n := len(fakeapi.List[corev1.Secret](f.server, "team")); n != burst {
		t.Errorf("there are %d secrets", n)
	}
}

func TestSecretsThatAreDeletedAgainAndAgainAreCreatedEverMoreSlowly(t *testing.T) {
	f := newFixture(t, fakeapi.New(robot()))
	written := 0
	testkit.ExpectWriteBackoff(t, f.clock, func() int { return written }, func() time.Duration {
		t.Helper()
		f.cache(t, fakeapi.Get[corev1.ServiceAccount](f.server, "team/robot"))
		again := f.mustSync(t, "robot")
		f.plans.delete(robotKey())
		for _, secret := range fakeapi.List[corev1.Secret](f.server, "team") {
			written++
			f.server.Remove(secret)
			f.server.Set(robot())
		}
		return again
	})
	events := testkit.Events(f.recorder)
	if len(events) != 1 || !strings.Contains(events[0], "LeftAlone") || !strings.Contains(events[0], "kind=ServiceAccount,apiVersion=v1") {
		t.Errorf("got %q", events)
	}
}

func TestAWaitingTokenKeepsItsName(t *testing.T) {
	f := newRobotFixture(t, robot())
	f.plans.delete(robotKey())
	f.tokens.err = workqueue.ErrRequeueLater
	if _, err := f.syncAccount(t, "robot"); !errors.Is(err, workqueue.ErrRequeueLater) {
		t.Errorf("waiting: %v", err)
	}
	name := f.plans.get(robotKey()).secretName
	f.tokens.err = nil
	f.expectSync(t, "woken", 0, "list, create "+name+", patch "+name)
}

// TestACreateWithoutAnAnswer is the one case in which a name may be in use unknown to the
// controller: it looks the name up until the create must be over, and never uses it again.
func TestACreateWithoutAnAnswer(t *testing.T) {
	f := newRobotFixture(t, robot())
	f.server.Inject(onCreate(timeout()).Fault)
	if _, err := f.syncAccount(t, "robot"); err == nil {
		t.Fatal("no error")
	}
	f.server.Inject(nil)
	f.requests(t)
	for range 10 {
		f.expectSync(t, "it may still be carried out", time.Second, "list "+planned)
		f.pass(time.Second)
	}
	f.expectSync(t, "it was not", 0, "list "+planned)
	if again, err := f.syncAccount(t, "robot"); again != 0 || err != nil {
		t.Fatal(again, err)
	}
	name := f.plans.get(robotKey()).secretName
	if name == planned {
		t.Error("the name was used again")
	}
	if diff := cmp.Diff("create "+name+", patch "+name, f.requests(t)); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

func TestASecretThatIsDeletedBeforeItsReference(t *testing.T) {
	f := newRobotFixture(t, robot())
	f.server.Inject(func(action clienttesting.Action) *fakeapi.Fault {
		if action.GetVerb() == "create" { // a user deletes it at once, and the event comes before the response
			f.plans.forgetSecret(robotKey(), planned)
		}
		return nil
	})
	f.expectSync(t, "created, and deleted", time.Second, creates)
}
