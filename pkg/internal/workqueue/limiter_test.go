package workqueue

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	clocktesting "k8s.io/utils/clock/testing"
)

func newPace(perSecond float64, burst int) (*KeyedLimiter[string], *clocktesting.FakePassiveClock) {
	clock := clocktesting.NewFakePassiveClock(time.Date(2026, time.January, 2, 3, 4, 5, 0, time.UTC))
	return NewKeyedLimiter[string](clock, perSecond, burst), clock
}

func TestABurstGoesAtOnceAndTheRestIsSpread(t *testing.T) {
	pace, _ := newPace(10, 3)
	var got []time.Duration
	for _, key := range []string{"a", "b", "c", "d", "e"} {
		got = append(got, pace.When(key))
	}
	if diff := cmp.Diff([]time.Duration{0, 0, 0, 100 * time.Millisecond, 200 * time.Millisecond}, got); diff != "" {
		t.Errorf("waits (-want +got):\n%s", diff)
	}
}

func TestAskingEarlyDoesNotChangeTheTurn(t *testing.T) {
	pace, clock := newPace(1, 1)
	pace.When("a")
	pace.When("b")
	clock.SetTime(clock.Now().Add(400 * time.Millisecond))
	if got := pace.When("b"); got != 600*time.Millisecond {
		t.Errorf("b waits %v", got)
	}
	if got := pace.When("c"); got != 1600*time.Millisecond {
		t.Errorf("c waits %v", got)
	}
	clock.SetTime(clock.Now().Add(600 * time.Millisecond))
	if got := pace.When("b"); got != 0 {
		t.Errorf("b waits %v when it is its turn", got)
	}
	if got := pace.When("b"); got != 2*time.Second {
		t.Errorf("a turn that was used up came again after %v", got)
	}
}

func TestARestGivesTheBurstBackAndNoMore(t *testing.T) {
	pace, clock := newPace(10, 2)
	for _, key := range []string{"a", "b", "c"} {
		pace.When(key)
	}
	clock.SetTime(clock.Now().Add(time.Hour))
	var got []time.Duration
	for _, key := range []string{"d", "e", "f"} {
		got = append(got, pace.When(key))
	}
	if diff := cmp.Diff([]time.Duration{0, 0, 100 * time.Millisecond}, got); diff != "" {
		t.Errorf("waits (-want +got):\n%s", diff)
	}
}

func TestAForgottenKeyQueuesUpAgain(t *testing.T) {
	pace, clock := newPace(1, 1)
	pace.When("a")
	pace.When("b")
	pace.When("c")
	pace.Forget("b")
	clock.SetTime(clock.Now().Add(time.Second))
	if got := pace.When("b"); got != 2*time.Second {
		t.Errorf("b waits %v", got)
	}
	if len(pace.slots) != 2 {
		t.Errorf("kept %v", pace.slots)
	}
}

func TestWhenAllAreForgottenNobodyWaitsForThem(t *testing.T) {
	pace, _ := newPace(1, 2)
	for i := range 100 {
		pace.When(string(rune('a' + i)))
	}
	for i := range 100 {
		pace.Forget(string(rune('a' + i)))
	}
	var got []time.Duration
	for _, key := range []string{"x", "y"} {
		got = append(got, pace.When(key))
	}
	if diff := cmp.Diff([]time.Duration{time.Second, 2 * time.Second}, got); diff != "" {
		t.Errorf("waits (-want +got), the burst having been used:\n%s", diff)
	}
}
