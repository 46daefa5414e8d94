package tokensecret

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

// goneSecret is a Secret of team/robot that went.
func goneSecret(name string, account types.UID) *cache.TokenSecret {
	return cache.NewTokenSecret(testkit.Secret("team/"+name, testkit.WithAccount("robot"), testkit.WithAccountUID(account)), nil)
}

// departed are the departures of Secrets of those names.
func departed(names ...string) departures {
	gone := departures{}
	for _, name := range names {
		gone[name] = departure{account: testkit.AccountUID, secret: goneSecret(name, testkit.AccountUID).UID}
	}
	return gone
}

// answer is what goneSecrets.of returns.
type answer struct {
	gone departures
	wait time.Duration
}

func expectOf(t *testing.T, g *goneSecrets, account string, at time.Time, want answer) {
	t.Helper()
	var got answer
	got.gone, got.wait = g.of(keyOf(account), at)
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(answer{}, departure{})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func expectNothingKept(t *testing.T, g *goneSecrets) {
	t.Helper()
	if len(g.byAccount) > 0 {
		t.Errorf("kept %v", g.byAccount)
	}
}

func at(ms int) time.Time { return testkit.Instant().Add(time.Duration(ms) * time.Millisecond) }

func TestDeparturesAreJudgedOnceAllIsQuiet(t *testing.T) {
	g := newGoneSecrets()
	expectOf(t, g, "team/robot", at(0), answer{})
	g.add(goneSecret("a", testkit.AccountUID), at(0))
	expectOf(t, g, "team/robot", at(0), answer{wait: 250 * time.Millisecond})
	g.add(goneSecret("b", testkit.AccountUID), at(150))
	expectOf(t, g, "team/robot", at(250), answer{wait: 150 * time.Millisecond})
	expectOf(t, g, "team/robot", at(399), answer{wait: time.Millisecond})
	expectOf(t, g, "team/default", at(400), answer{})
	expectOf(t, g, "other/robot", at(400), answer{})
	expectOf(t, g, "team/robot", at(400), answer{gone: departed("a", "b")})

	g.settle(keyOf("team/robot"), departed("a", "c"))
	// However late, as after a long backoff.
	expectOf(t, g, "team/robot", at(300000), answer{gone: departed("b")})
	g.settle(keyOf("team/robot"), departed("b"))
	expectOf(t, g, "team/robot", at(300000), answer{})
	expectNothingKept(t, g)
}

func TestTheFasterABurstTheSoonerItIsOver(t *testing.T) {
	cases := map[string]struct {
		at   []int
		want time.Duration // until it is over
	}{
		"one":                       {at: []int{0}, want: 250 * time.Millisecond},
		"as fast as they come":      {at: []int{0, 1, 2, 4}, want: 20 * time.Millisecond},
		"with a pause":              {at: []int{0, 1, 21, 22}, want: 40 * time.Millisecond},
		"slow":                      {at: []int{0, 50, 100}, want: 100 * time.Millisecond},
		"too slow to be waited for": {at: []int{0, 1000, 1800}, want: 200 * time.Millisecond},
		"the next one":              {at: []int{0, 1, 2, 2002}, want: 250 * time.Millisecond},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			g := newGoneSecrets()
			var got time.Duration
			for _, ms := range tc.at {
				got = g.add(goneSecret("a", testkit.AccountUID), at(ms))
			}
			last := tc.at[len(tc.at)-1]
			if got != tc.want {
				t.Errorf("over in %v, want %v", got, tc.want)
			}
			expectOf(t, g, "team/robot", at(last), answer{wait: tc.want})
		})
	}
}

// TestABurstThatGoesOnAfterAWriteIsSlow: two that go at once every 30 ms are no burst each.
func TestABurstThatGoesOnAfterAWriteIsSlow(t *testing.T) {
	g, robot := newGoneSecrets(), keyOf("team/robot")
	writes := 0
	for ms := range 3000 {
		if ms%30 < 2 {
			g.add(goneSecret(fmt.Sprint(ms), testkit.AccountUID), at(ms))
		}
		if gone, wait := g.of(robot, at(ms)); wait <= 0 && len(gone) > 0 {
			writes++
			g.settle(robot, gone)
		}
	}
	if writes != 2 {
		t.Errorf("%d writes, want one for the first two and one as soon as patience ends", writes)
	}
}

func TestDeparturesAreJudgedWhenItNeverGetsQuiet(t *testing.T) {
	g := newGoneSecrets()
	var names []string
	for i := range 20 { // every 100 ms
		names = append(names, string(rune('a'+i)))
		g.add(goneSecret(names[i], testkit.AccountUID), at(i*100))
	}
	expectOf(t, g, "team/robot", at(1900), answer{wait: 100 * time.Millisecond})
	expectOf(t, g, "team/robot", at(2000), answer{gone: departed(names...)})
	g.add(goneSecret("z", testkit.AccountUID), at(2001))
	expectOf(t, g, "team/robot", at(2001), answer{wait: 202 * time.Millisecond})
}

func TestWhatWentMeanwhileIsNotSettled(t *testing.T) {
	g := newGoneSecrets()
	g.add(goneSecret("a", testkit.AccountUID), at(0))
	gone, _ := g.of(keyOf("team/robot"), at(1000))
	again := goneSecret("a", testkit.AccountUID)
	again.UID = "another"
	g.add(again, at(1000))
	g.settle(keyOf("team/robot"), gone)
	want := departures{"a": departure{account: testkit.AccountUID, secret: "another"}}
	expectOf(t, g, "team/robot", at(2000), answer{gone: want})
}

func TestDeparturesOfAnAccountThatIsNotThereAreForgottenInTime(t *testing.T) {
	g, robot := newGoneSecrets(), keyOf("team/robot")
	g.add(goneSecret("a", testkit.AccountUID), at(0))
	for ms, want := range map[int]time.Duration{1000: 119 * time.Second, 119999: time.Millisecond} {
		if left := g.expire(robot, at(ms)); left != want {
			t.Errorf("after %d ms: %v are left, want %v", ms, left, want)
		}
	}
	if left := g.expire(robot, at(120000)); left != 0 {
		t.Errorf("%v are left", left)
	}
	expectNothingKept(t, g)
	if left := g.expire(robot, at(120000)); left != 0 {
		t.Errorf("of nothing, %v are left", left)
	}
}

func TestADoubtLastsUntilAllIsSettled(t *testing.T) {
	g, robot := newGoneSecrets(), keyOf("team/robot")
	g.doubt(robot)
	if g.doubted(robot) {
		t.Error("there is nothing to doubt")
	}
	g.add(goneSecret("a", testkit.AccountUID), at(0))
	g.doubt(robot)
	if !g.doubted(robot) {
		t.Error("not doubted")
	}
	g.add(goneSecret("b", testkit.AccountUID), at(0))
	g.settle(robot, departed("a"))
	if g.doubted(robot) {
		t.Error("still doubted")
	}
}

func TestSaw(t *testing.T) {
	gone := departures{"of-this": {account: testkit.AccountUID}, "of-another": {account: testkit.OtherUID}, "of-no-uid": {}}
	for name, want := range map[string]bool{"of-this": true, "of-another": false, "of-no-uid": true, "never-seen": false} {
		if got := gone.saw(name, testkit.AccountUID); got != want {
			t.Errorf("%s: got %t", name, got)
		}
	}
	if departures(nil).saw("a", testkit.AccountUID) {
		t.Error("nothing was seen")
	}
}
