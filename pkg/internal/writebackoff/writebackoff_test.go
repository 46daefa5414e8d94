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

// write writes content to object when it may, and returns how long that took.
func (f fixture) write(object, content string) (waited time.Duration) {
	for {
		d := f.Allow(object, content)
		if d.Wait == 0 {
			f.Record(object, content)
			return waited
		}
		waited += d.Wait
		f.pass(d.Wait)
	}
}

// writes are the waits before n writes, each of which is reverted at once.
func (f fixture) writes(object, content string, n int) (waited []time.Duration) {
	for range n {
		waited = append(waited, f.write(object, content))
	}
	return waited
}

func (f fixture) expectContended(t *testing.T, want int) {
	t.Helper()
	text := fmt.Sprintf(`
# HELP sakeeper_contended_objects Objects that another client keeps changing back, and to which sakeeper therefore writes ever more slowly, by kind.
# TYPE sakeeper_contended_objects gauge
sakeeper_contended_objects{kind="things"} %d
`, want)
	if err := testutil.GatherAndCompare(f.registry, strings.NewReader(text)); err != nil {
		t.Error(err)
	}
}

func TestFiveRewritesAreFreeAndThenEachTakesTwiceAsLongUpToFiveMinutes(t *testing.T) {
	got := newFixture().writes("a", "x", 18)
	s, m := time.Second, time.Minute
	want := []time.Duration{0, 0, 0, 0, 0, 0, s, 2 * s, 4 * s, 8 * s, 16 * s, 32 * s, 64 * s, 128 * s, 256 * s, 5 * m, 5 * m, 5 * m}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestAnHourOfRevertsCostsFewWrites(t *testing.T) {
	f := newFixture()
	writes := 0
	for end := f.clock.Now().Add(time.Hour); f.clock.Now().Before(end); writes++ {
		f.write("a", "x")
	}
	if writes > 30 {
		t.Errorf("%d writes in an hour, want at most 30", writes)
	}
}

func TestADelayCountsFromTheLastWrite(t *testing.T) {
	f := newFixture()
	f.writes("a", "x", 10) // the last after 8 s
	f.pass(10 * time.Second)
	if d := f.Allow("a", "x"); d.Wait != 6*time.Second {
		t.Errorf("10 of 16 seconds have passed, and it has to wait %v", d.Wait)
	}
	f.pass(time.Minute)
	if d := f.Allow("a", "x"); d.Wait != 0 {
		t.Errorf("a minute later it has to wait %v", d.Wait)
	}
}

func TestTenMinutesAfterTheLastWriteAnObjectStartsAnew(t *testing.T) {
	f := newFixture()
	f.writes("a", "x", 20)
	f.pass(forgetAfter - time.Second)
	f.expectContended(t, 1)
	if d := f.Allow("a", "x"); d.Wait != 0 {
		t.Errorf("it has to wait %v, although more than the longest delay has passed", d.Wait)
	}
	f.pass(time.Second)
	f.expectContended(t, 0)
	want := []time.Duration{0, 0, 0, 0, 0, 0, time.Second}
	if diff := cmp.Diff(want, f.writes("a", "x", 7)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	f.pass(2 * forgetAfter)
	f.Allow("b", "x")
	if len(f.entries) != 0 {
		t.Errorf("%d entries are kept", len(f.entries))
	}
}

func TestAClockThatIsSetBackDelaysNothing(t *testing.T) {
	f := newFixture()
	f.writes("a", "x", 10)
	f.writes("b", "x", 1)
	f.pass(-24 * time.Hour)
	if d := f.Allow("a", "x"); d.Wait != 16*time.Second {
		t.Errorf("after 8 s it has to wait %v", d.Wait)
	}
	f.pass(10 * time.Second)
	if d := f.Allow("a", "x"); d.Wait != 6*time.Second {
		t.Errorf("10 s later it has to wait %v", d.Wait)
	}
	f.pass(2 * forgetAfter)
	f.Allow("c", "x")
	if len(f.entries) != 0 {
		t.Errorf("%d entries are kept", len(f.entries))
	}
}

func TestAnObjectCountsOnceHoweverManyOfItsContentsAreReverted(t *testing.T) {
	f := newFixture()
	f.writes("a", "x", 7)
	f.writes("a", "y", 7)
	f.expectContended(t, 1)
}

func TestOtherObjectsAndContentsAreNotDelayed(t *testing.T) {
	f := newFixture()
	f.writes("a", "x", 20)
	for _, other := range [][2]string{{"a", "y"}, {"b", "x"}} {
		if d := f.Allow(other[0], other[1]); d.Wait != 0 || d.Warn {
			t.Errorf("%v: %+v", other, d)
		}
	}
	f.expectContended(t, 1)
}

func TestAWarningIsGivenOnceAtTheSixthRewrite(t *testing.T) {
	f := newFixture()
	recorder := record.NewFakeRecorder(10)
	recorder.IncludeObject = true
	warned := []int{}
	for write := range 12 {
		d := f.Allow("a", "x")
		if d.Warn {
			warned = append(warned, write)
		}
		Report(t.Context(), recorder, &corev1.ObjectReference{Kind: "ConfigMap", APIVersion: "v1", Namespace: "team", Name: "a"}, d)
		f.write("a", "x")
	}
	if diff := cmp.Diff([]int{6}, warned); diff != "" { // write 0 is no rewrite
		t.Errorf("-want +got:\n%s", diff)
	}
	events := testkit.Events(recorder)
	if len(events) != 1 || !strings.HasPrefix(events[0], "Warning LeftAlone Another client keeps changing this back") {
		t.Errorf("events: %q", events)
	}
}
