package templatestatus

import (
	"errors"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"

	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

func TestTheFirstNamesAreTold(t *testing.T) {
	var n Names
	for _, name := range []string{"g", "b", "a", "f", "e", "d", "c"} {
		n.Add(name)
	}
	if got := n.String(); got != "a; b; c; d; e; and 2 more" || n.Count() != 7 {
		t.Errorf("got %q of %d", got, n.Count())
	}
}

func TestStatusesAreWrittenAtMostOnceInTheInterval(t *testing.T) {
	clock := clocktesting.NewFakePassiveClock(testkit.Instant())
	p := Pace{Clock: clock, Interval: Interval}
	expectWait := func(want time.Duration) {
		t.Helper()
		if got := p.Wait(); got != want {
			t.Errorf("wait for %v, want %v", got, want)
		}
	}
	expectWait(0)
	errBoom := errors.New("boom")
	changes := []func() (time.Duration, error){
		nil,
		func() (time.Duration, error) { return time.Second, errBoom },
		func() (time.Duration, error) { return time.Minute, errors.New("another") },
	}
	i := -1
	again, err := p.Write(make([]*cache.Template, len(changes)), func(*cache.Template) func() (time.Duration, error) { i++; return changes[i] })
	if again != time.Minute || !errors.Is(err, errBoom) {
		t.Errorf("again after %v, error %v", again, err)
	}
	clock.SetTime(testkit.Instant().Add(time.Second))
	expectWait(9 * time.Second)
	clock.SetTime(testkit.Instant().Add(-time.Hour)) // it was set back
	expectWait(0)
	clock.SetTime(testkit.Instant().Add(Interval))
	if _, err := p.Write(make([]*cache.Template, 1), func(*cache.Template) func() (time.Duration, error) { return nil }); err != nil {
		t.Error(err)
	}
	expectWait(0) // nothing was written
}
