package tokenreferences

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sakeeper/sakeeper/pkg/testkit"
)

// The cache stays the same, as if another client undid each write.
func TestAWriteThatIsUndoneFiveTimesIsNotRepeatedForAnHour(t *testing.T) {
	f := newFixture(t, apiServer{}, robot("robot-token-x7z9q"))
	var requeueAfter time.Duration
	for range 10 {
		var err error
		if requeueAfter, err = f.syncRobot(t); err != nil {
			t.Fatal(err)
		}
		f.advance(10 * time.Second)
	}
	var got []string
	for _, r := range testkit.Requests(f.client.Actions()) {
		got = append(got, r.Verb+" "+r.Resource+" "+r.Name)
	}
	if diff := cmp.Diff(slices.Repeat([]string{"patch serviceaccounts team/robot"}, 5), got); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
	if requeueAfter != time.Hour-40*time.Second {
		t.Errorf("requeued after %v", requeueAfter)
	}
	if events := testkit.Events(f.recorder); len(events) != 1 {
		t.Errorf("events %v", events)
	}
}
