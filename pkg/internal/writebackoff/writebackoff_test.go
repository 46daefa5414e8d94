package writebackoff

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/record"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/sakeeper/sakeeper/pkg/testkit"
)

type fixture struct {
	*Tracker[string]
	clock    *clocktesting.FakePassiveClock
	registry *prometheus.Registry
}

func newFixture() fixture {
	f := fixture{clock: clocktesting.NewFakePassiveClock(testkit.Instant()), registry: prometheus.NewRegistry()}
	f.Tracker = New[string]("things", f.clock, f.registry)
	return f
}

func (f fixture) pass(d time.Duration) { f.clock.SetTime(f.clock.Now().Add(d)) }

// fight writes "x" to object n times, a second apart, as long as it may.
func (f fixture) fight(object string, n int) (written int) {
	for range n {
		if f.Allow(object, "x").Wait == 0 {
			f.Record(object, "x")
			written++
		}
		f.pass(time.Second)
	}
	return written
}

func (f fixture) expectContended(t *testing.T, want int) {
	t.Helper()
	text := fmt.Sprintf(`
# HELP sakeeper_contended_objects Objects that are left alone for an hour because somebody keeps undoing what is written, by kind. From 20 on, the whole kind is.
# TYPE sakeeper_contended_objects gauge
sakeeper_contended_objects{kind="things"} %d
`, want)
	if err := testutil.GatherAndCompare(f.registry, strings.NewReader(text)); err != nil {
		t.Error(err)
	}
}

func TestAnObjectIsLeftAloneAfterFiveWritesForAnHour(t *testing.T) {
	f := newFixture()
	if got := f.fight("a", 30); got != 5 {
		t.Errorf("%d writes, want 5", got)
	}
	f.expectContended(t, 1)
	if got := f.Allow("b", "x"); got != (Verdict{}) {
		t.Errorf("another object: %+v", got)
	}
	if got := f.Allow("a", "y"); got != (Verdict{}) {
		t.Errorf("another content: %+v", got)
	}
	f.pass(time.Hour - 31*time.Second)
	if got := f.Allow("a", "x"); got.Wait <= 0 {
		t.Errorf("less than an hour later: %+v", got)
	}
	f.pass(31 * time.Second)
	if got := f.Allow("a", "x"); got != (Verdict{}) {
		t.Errorf("an hour later: %+v", got)
	}
	f.expectContended(t, 0)
	if got := f.fight("a", 10); got != 5 {
		t.Errorf("%d writes in the second round, want 5", got)
	}
}

func TestItIsToldOnce(t *testing.T) {
	f := newFixture()
	f.fight("a", 5)
	want := []Verdict{{Wait: time.Hour, Object: true}, {Wait: time.Hour}}
	if diff := cmp.Diff(want, []Verdict{f.Allow("a", "x"), f.Allow("a", "x")}); diff != "" {
		t.Errorf("verdicts (-want +got):\n%s", diff)
	}
}

func TestSlowChangesAreNoFight(t *testing.T) {
	f := newFixture()
	for range 50 {
		if got := f.Allow("a", "x"); got.Wait != 0 {
			t.Fatalf("left alone: %+v", got)
		}
		f.Record("a", "x")
		f.pass(2*time.Minute + time.Second) // 5 writes take more than 10 minutes
	}
}

func TestTwentyContendedObjectsMakeAContendedKind(t *testing.T) {
	f := newFixture()
	object := func(i int) string { return fmt.Sprint("object ", i) }
	for i := range 20 {
		f.fight(object(i), 5)
		verdict := f.Allow(object(i), "x")
		if want := i == 19; verdict.Kind != want || !verdict.Object {
			t.Fatalf("object %d: %+v", i, verdict)
		}
		if i < 19 {
			if got := f.Allow("another", "x"); got.Wait != 0 {
				t.Fatalf("after %d objects the kind is left alone", i+1)
			}
		}
	}
	f.expectContended(t, 20)
	for _, content := range []string{"x", "y"} {
		if got := f.Allow("another", content); got.Wait != time.Hour || got.Object || got.Kind {
			t.Errorf("another object, %s: %+v", content, got)
		}
	}
	f.pass(time.Hour)
	if got := f.Allow("another", "x"); got != (Verdict{}) {
		t.Errorf("an hour later: %+v", got)
	}
}

func TestWhatSaysNothingAnyMoreIsForgotten(t *testing.T) {
	f := newFixture()
	for i := range 1000 {
		f.Allow(fmt.Sprint(i), "x")
		f.Record(fmt.Sprint(i), "x")
	}
	f.fight("a", 6)
	f.pass(2 * time.Hour)
	f.Allow("another", "x")
	if len(f.entries) > 0 {
		t.Errorf("kept %d entries", len(f.entries))
	}
	f.expectContended(t, 0)
}

func TestReport(t *testing.T) {
	object := &corev1.ObjectReference{Kind: "ConfigMap", Namespace: "team", Name: "c"}
	const text = "Warning LeftAlone Somebody keeps undoing what is written here, such as another controller with another CA or key. " +
		"%s left alone for 1h0m0s. Run one of the two, or give both the same files"
	cases := map[string]struct {
		in   Verdict
		want []string
	}{
		"nothing new":        {in: Verdict{Wait: time.Minute}},
		"an object":          {in: Verdict{Wait: time.Hour, Object: true}, want: []string{fmt.Sprintf(text, "This object is")}},
		"a kind":             {in: Verdict{Wait: time.Hour, Object: true, Kind: true}, want: []string{fmt.Sprintf(text, "All objects of this kind are")}},
		"that it goes ahead": {},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			recorder := record.NewFakeRecorder(2)
			Report(t.Context(), recorder, object, tc.in)
			if diff := cmp.Diff(tc.want, testkit.Events(recorder)); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
		})
	}
}
