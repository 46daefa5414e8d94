package tokenreferences

import (
	"testing"
	"time"

	"github.com/sakeeper/sakeeper/pkg/testkit"
)

// The cache stays the same, as if another client undid each write.
func TestAWriteThatIsUndoneIsRepeatedEverMoreSlowly(t *testing.T) {
	f := newFixture(t, apiServer{}, robot("robot-token-x7z9q"))
	testkit.ExpectWriteBackoff(t, f.clock, func() int { return len(f.client.Actions()) }, func() time.Duration {
		requeueAfter, err := f.syncRobot(t)
		if err != nil {
			t.Fatal(err)
		}
		return requeueAfter
	})
	for _, r := range testkit.Requests(f.client.Actions()) {
		if got := r.Verb + " " + r.Resource + " " + r.Name; got != "patch serviceaccounts team/robot" {
			t.Error(got)
		}
	}
	if events := testkit.Events(f.recorder); len(events) != 1 {
		t.Errorf("events %v", events)
	}
}
