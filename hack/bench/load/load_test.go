package load

import (
	"testing"
	"time"
)

// TestPacedCountsFromTheResponse: what was seen before the response came took no time, and
// nothing is done while a result is missing.
func TestPacedCountsFromTheResponse(t *testing.T) {
	at := time.Unix(1000, 0)
	p := &paced{
		answered: map[string]time.Time{"early": at, "late": at},
		seen:     map[string]time.Time{"early": at.Add(-time.Second)},
	}
	if _, done := p.result(at); done {
		t.Fatal("it is done without the last result")
	}
	p.seen["late"] = at.Add(3 * time.Second)
	r, done := p.result(at)
	if !done || r.P50 != 3*time.Second || r.P99 != 3*time.Second || r.Elapsed != 3*time.Second {
		t.Errorf("done %t: %+v", done, r)
	}
	p.answered["other"], p.seen["other"] = at, at
	if r, _ = p.result(at); r.P50 != 0 {
		t.Errorf("p50 %v of 0, 0 and 3 s", r.P50)
	}
}

func TestClockHasTheFirst(t *testing.T) {
	c := newClock(2)
	c.begin("a")
	c.begin("b")
	c.happen("c") // unknown
	c.happen("b")
	c.happen("a")
	r, err := c.wait(t.Context())
	if err != nil || r.First <= 0 || r.First > r.Elapsed || r.P50 < r.First {
		t.Errorf("%+v: %v", r, err)
	}
}
