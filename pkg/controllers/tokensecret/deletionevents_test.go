package tokensecret

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sakeeper/sakeeper/pkg/testkit"
)

// Three Secrets of one account and one of another namespace are deleted at about the same time, and
// another one right before the controller stops.
func TestDeletionsAtAboutTheSameTimeAreOneEventPerNamespace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		late, other := robot(named("late"), testkit.WithUID("late")), testkit.ServiceAccount("other/robot")
		f, stop := startController(t, robot(), late, other, empty(named("a")), empty(named("b")), empty(named("c")),
			empty(named("d"), testkit.WithAccount("late")),
			testkit.Secret("other/s", testkit.WithAccount("robot")))
		time.Sleep(time.Minute) // they are filled
		expect := func(step string, want ...string) {
			t.Helper()
			got := testkit.Events(f.recorder)
			for i := range want {
				want[i] = "Warning DeletedTokenSecret " + want[i] + " involvedObject{kind=Namespace,apiVersion=v1}"
			}
			slices.Sort(got)
			if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("%s: events (-want +got):\n%s", step, diff)
			}
		}
		f.remove(robot())
		f.remove(other)
		time.Sleep(deletionEventsAfter - time.Millisecond)
		expect("while more deletions may follow")
		time.Sleep(time.Millisecond)
		synctest.Wait()
		expect("after that",
			"Deleted 3 token secrets, because their service accounts do not exist: a (of robot), b (of robot), c (of robot)",
			"Deleted token secret s, because its service account robot does not exist")

		f.set(secret(named("e"), testkit.WithAccount("late"), testkit.WithAccountUID(testkit.OtherUID)))
		f.remove(late)
		stop()
		expect("after the stop, for each reason",
			"Deleted token secret d, because its service account late does not exist",
			"Deleted token secret e, because it is for another UID of service account late: it names "+string(testkit.OtherUID)+", and the account has late")
	})
}

func TestDeletionText(t *testing.T) {
	long := strings.Repeat("a", 253)
	many := func(n int, name string) (list []deletedSecret) {
		for range n {
			list = append(list, deletedSecret{name: name, account: name, reason: "of a reason"})
		}
		return list
	}
	const begin = " token secrets, because their service accounts do not exist: "
	for name, tc := range map[string]struct {
		in   []deletedSecret
		want string
	}{
		"one has its reason":             {many(1, "s"), "Deleted token secret s, because of a reason"},
		"some are all named":             {many(2, "s"), "Deleted 2" + begin + "s (of s), s (of s)"},
		"the first of many are named":    {many(1000, "s"), "Deleted 1000" + begin + "s (of s), s (of s), s (of s), s (of s), s (of s), and 995 more"},
		"long names are only beginnings": {many(2, long), "Deleted 2" + begin + fmt.Sprintf("%[1]s... (of %[1]s...), %[1]s... (of %[1]s...)", long[:80])},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, deletionText(false, tc.in)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
	const other = "Deleted 2 token secrets, because they are for other UIDs than their service accounts have: s (of s), s (of s)"
	if got := deletionText(true, many(2, "s")); got != other {
		t.Errorf("for another UID: %q", got)
	}
	if n := len(deletionText(true, many(1000, long))); n > 1024 {
		t.Errorf("a text of %d bytes is too long for an event", n)
	}
}
