package tokensecret

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sakeeper/sakeeper/pkg/informers"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

// goneSecret is a Secret of team/robot that went.
func goneSecret(name string, account types.UID) *informers.TokenSecret {
	return informers.NewTokenSecret(testkit.Secret("team/"+name, testkit.WithAccount("robot"), testkit.WithAccountUID(account)), nil)
}

// answer is what goneSecrets.of returns.
type answer struct {
	gone    departures
	again   time.Duration
	settled bool
}

func expectOf(t *testing.T, g *goneSecrets, account string, at time.Time, want answer) {
	t.Helper()
	var got answer
	got.gone, got.again, got.settled = g.of(keyOf(account), at)
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(answer{})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func at(ms int) time.Time { return testkit.Instant().Add(time.Duration(ms) * time.Millisecond) }

func unsettled(wait time.Duration) answer { return answer{again: wait} }

func nothing() answer { return answer{settled: true} }

func TestDeparturesAreJudgedOnceAllIsQuiet(t *testing.T) {
	g := newGoneSecrets()
	expectOf(t, g, "team/robot", at(0), nothing())
	g.add(goneSecret("a", testkit.AccountUID), at(0))
	expectOf(t, g, "team/robot", at(0), unsettled(250*time.Millisecond))
	g.add(goneSecret("b", testkit.OtherUID), at(100))
	expectOf(t, g, "team/robot", at(250), unsettled(100*time.Millisecond))
	expectOf(t, g, "team/robot", at(349), unsettled(time.Millisecond))
	expectOf(t, g, "team/default", at(350), nothing())
	expectOf(t, g, "other/robot", at(350), nothing())
	both := departures{"a": testkit.AccountUID, "b": testkit.OtherUID}
	expectOf(t, g, "team/robot", at(350), answer{both, 4750 * time.Millisecond, true})

	g.forget(keyOf("team/robot"), map[string]bool{"a": true, "c": true})
	expectOf(t, g, "team/robot", at(400), answer{departures{"b": testkit.OtherUID}, 4700 * time.Millisecond, true})
	g.forget(keyOf("team/robot"), map[string]bool{"b": true})
	expectOf(t, g, "team/robot", at(450), nothing())
	if len(g.byAccount) > 0 {
		t.Errorf("kept %v", g.byAccount)
	}
}

func TestDeparturesAreJudgedWhenItNeverGetsQuiet(t *testing.T) {
	g := newGoneSecrets()
	want := departures{}
	for i := range 20 { // every 100 ms
		s := goneSecret(string(rune('a'+i)), testkit.AccountUID)
		g.add(s, at(i*100))
		want[s.Name] = testkit.AccountUID
	}
	expectOf(t, g, "team/robot", at(1900), unsettled(100*time.Millisecond))
	expectOf(t, g, "team/robot", at(2000), answer{want, 4900 * time.Millisecond, true})
	g.add(goneSecret("z", testkit.AccountUID), at(2001))
	expectOf(t, g, "team/robot", at(2001), unsettled(250*time.Millisecond))
}

func TestDeparturesAreForgottenAfterGrace(t *testing.T) {
	g := newGoneSecrets()
	g.add(goneSecret("a", testkit.AccountUID), at(0))
	expectOf(t, g, "team/robot", at(4999), answer{departures{"a": testkit.AccountUID}, time.Millisecond, true})
	expectOf(t, g, "team/robot", at(5000), nothing())
	if len(g.byAccount) > 0 {
		t.Errorf("kept %v", g.byAccount)
	}
}

func TestRetainedDeparturesLiveUntilTheyWereJudgedOnceMore(t *testing.T) {
	g := newGoneSecrets()
	g.add(goneSecret("a", testkit.AccountUID), at(0))
	if again := g.retain(keyOf("team/robot")); again != time.Second {
		t.Errorf("again after %v", again)
	}
	// However late, as after a long backoff.
	expectOf(t, g, "team/robot", at(300000), answer{departures{"a": testkit.AccountUID}, grace, true})
	expectOf(t, g, "team/robot", at(305000), nothing())
	if again := g.retain(keyOf("team/robot")); again != 0 {
		t.Errorf("nothing is retained, again after %v", again)
	}
}

func TestSaw(t *testing.T) {
	gone := departures{"of-this": testkit.AccountUID, "of-another": testkit.OtherUID, "of-no-uid": ""}
	for name, want := range map[string]bool{"of-this": true, "of-another": false, "of-no-uid": true, "never-seen": false} {
		if got := gone.saw(name, testkit.AccountUID); got != want {
			t.Errorf("%s: got %t", name, got)
		}
	}
	if departures(nil).saw("a", testkit.AccountUID) {
		t.Error("nothing was seen")
	}
}
