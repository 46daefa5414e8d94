package workqueue

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	clocktesting "k8s.io/utils/clock/testing"
)

func newLimiter(perSecond float64, burst int) (*KeyedLimiter[string], *clocktesting.FakePassiveClock) {
	clock := clocktesting.NewFakePassiveClock(time.Date(2026, time.January, 2, 3, 4, 5, 0, time.UTC))
	return NewKeyedLimiter[string](clock, perSecond, burst), clock
}

func TestABurstGoesAtOnceAndTheRestIsSpread(t *testing.T) {
	limiter, _ := newLimiter(10, 3)
	var got []time.Duration
	for _, key := range []string{"a", "b", "c", "d", "e"} {
		got = append(got, limiter.When(key))
	}
	if diff := cmp.Diff([]time.Duration{0, 0, 0, 100 * time.Millisecond, 200 * time.Millisecond}, got); diff != "" {
		t.Errorf("waits (-want +got):\n%s", diff)
	}
}

func TestAnEarlyCallDoesNotChangeTheTimeOfAKey(t *testing.T) {
	limiter, clock := newLimiter(1, 1)
	limiter.When("a")
	limiter.When("b")
	clock.SetTime(clock.Now().Add(400 * time.Millisecond))
	if got := limiter.When("b"); got != 600*time.Millisecond {
		t.Errorf("b waits %v", got)
	}
	if got := limiter.When("c"); got != 1600*time.Millisecond {
		t.Errorf("c waits %v", got)
	}
	clock.SetTime(clock.Now().Add(600 * time.Millisecond))
	if got := limiter.When("b"); got != 0 {
		t.Errorf("b waits %v after its time", got)
	}
	if got := limiter.When("b"); got != 2*time.Second {
		t.Errorf("b waits %v for its second turn", got)
	}
}

func TestAfterATimeWithoutKeysOneBurstIsAllowed(t *testing.T) {
	limiter, clock := newLimiter(10, 2)
	for _, key := range []string{"a", "b", "c"} {
		limiter.When(key)
	}
	clock.SetTime(clock.Now().Add(time.Hour))
	var got []time.Duration
	for _, key := range []string{"d", "e", "f"} {
		got = append(got, limiter.When(key))
	}
	if diff := cmp.Diff([]time.Duration{0, 0, 100 * time.Millisecond}, got); diff != "" {
		t.Errorf("waits (-want +got):\n%s", diff)
	}
}

func TestAForgottenKeyWaitsAnew(t *testing.T) {
	limiter, clock := newLimiter(1, 1)
	limiter.When("a")
	limiter.When("b")
	limiter.When("c")
	limiter.Forget("b")
	clock.SetTime(clock.Now().Add(time.Second))
	if got := limiter.When("b"); got != 2*time.Second {
		t.Errorf("b waits %v", got)
	}
	if len(limiter.turns) != 2 {
		t.Errorf("kept %v", limiter.turns)
	}
}

func TestNewKeysDoNotWaitForForgottenOnes(t *testing.T) {
	limiter, _ := newLimiter(1, 2)
	for i := range 100 {
		limiter.When(string(rune('a' + i)))
	}
	for i := range 100 {
		limiter.Forget(string(rune('a' + i)))
	}
	var got []time.Duration
	for _, key := range []string{"x", "y"} {
		got = append(got, limiter.When(key))
	}
	if diff := cmp.Diff([]time.Duration{time.Second, 2 * time.Second}, got); diff != "" {
		t.Errorf("waits (-want +got), the burst having been used:\n%s", diff)
	}
}
