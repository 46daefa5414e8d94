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
	return informers.NewTokenSecret(testkit.Secret("team/"+name, testkit.WithAccount("robot"), testkit.WithAccountUID(account)))
}

func expectTake(t *testing.T, g *goneSecrets, account string, at time.Time, want departures, wantWait time.Duration) {
	t.Helper()
	got, wait := g.take(keyOf(account), at)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("taken (-want +got):\n%s", diff)
	}
	if wait != wantWait {
		t.Errorf("wait %v, want %v", wait, wantWait)
	}
}

func TestDeparturesAreTakenOnceAllIsQuiet(t *testing.T) {
	at := func(ms int) time.Time { return testkit.Instant().Add(time.Duration(ms) * time.Millisecond) }
	g := newGoneSecrets()
	expectTake(t, g, "team/robot", at(0), nil, 0)
	g.add(goneSecret("a", testkit.AccountUID), at(0))
	expectTake(t, g, "team/robot", at(0), nil, 250*time.Millisecond)
	g.add(goneSecret("b", testkit.OtherUID), at(100))
	expectTake(t, g, "team/robot", at(250), nil, 100*time.Millisecond)
	expectTake(t, g, "team/robot", at(349), nil, time.Millisecond)
	expectTake(t, g, "team/default", at(350), nil, 0)
	expectTake(t, g, "other/robot", at(350), nil, 0)
	expectTake(t, g, "team/robot", at(350), departures{"a": testkit.AccountUID, "b": testkit.OtherUID}, 0)
	expectTake(t, g, "team/robot", at(350), nil, 0)
}

func TestDeparturesAreTakenWhenItNeverGetsQuiet(t *testing.T) {
	g := newGoneSecrets()
	now := testkit.Instant()
	want := departures{}
	for ms := range 20 { // every 100 ms
		now = testkit.Instant().Add(time.Duration(ms*100) * time.Millisecond)
		s := goneSecret(string(rune('a'+ms)), testkit.AccountUID)
		g.add(s, now)
		want[s.Name] = testkit.AccountUID
	}
	expectTake(t, g, "team/robot", now, nil, 100*time.Millisecond) // 1.9 s after the first
	expectTake(t, g, "team/robot", now.Add(100*time.Millisecond), want, 0)
}

func TestWhatIsGivenBackIsTakenAgain(t *testing.T) {
	now := testkit.Instant()
	t.Run("at once", func(t *testing.T) {
		g := newGoneSecrets()
		g.giveBack(keyOf("team/robot"), departures{"a": testkit.AccountUID})
		expectTake(t, g, "team/robot", now, departures{"a": testkit.AccountUID}, 0)
	})
	t.Run("together with what went meanwhile, which counts more", func(t *testing.T) {
		g := newGoneSecrets()
		g.add(goneSecret("a", testkit.OtherUID), now)
		g.giveBack(keyOf("team/robot"), departures{"a": testkit.AccountUID, "b": testkit.AccountUID})
		expectTake(t, g, "team/robot", now, nil, 250*time.Millisecond)
		expectTake(t, g, "team/robot", now.Add(time.Second), departures{"a": testkit.OtherUID, "b": testkit.AccountUID}, 0)
	})
	t.Run("and nothing is nothing", func(t *testing.T) {
		g := newGoneSecrets()
		g.giveBack(keyOf("team/robot"), nil)
		if len(g.byAccount) > 0 {
			t.Errorf("kept %v", g.byAccount)
		}
	})
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
