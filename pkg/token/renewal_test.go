package token

import (
	"fmt"
	"testing"
	"time"

	"github.com/sakeeper/sakeeper/pkg/testkit"
)

func validityOfLength(d time.Duration) Validity {
	return Validity{testkit.Instant(), testkit.Instant().Add(d)}
}

func TestRenewAt(t *testing.T) {
	cases := map[string]struct {
		in                  time.Duration
		earliest, notBefore time.Duration
	}{
		"a day":          {in: 24 * time.Hour, earliest: 16*time.Hour + 48*time.Minute, notBefore: 19*time.Hour + 12*time.Minute},
		"an hour":        {in: time.Hour, earliest: 42 * time.Minute, notBefore: 48 * time.Minute},
		"ten minutes":    {in: 10 * time.Minute, earliest: 7 * time.Minute, notBefore: 8 * time.Minute},
		"four minutes":   {in: 4 * time.Minute, earliest: 2*time.Minute + 48*time.Second, notBefore: 3 * time.Minute},
		"two minutes":    {in: 2 * time.Minute, earliest: time.Minute, notBefore: time.Minute},
		"thirty seconds": {in: 30 * time.Second, earliest: 15 * time.Second, notBefore: 15 * time.Second},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			least, most := tc.in, time.Duration(0)
			for i := range 10000 {
				after := validityOfLength(tc.in).RenewAt(fmt.Sprint("uid ", i)).Sub(testkit.Instant())
				least, most = min(least, after), max(most, after)
			}
			if slack := tc.in / 500; least < tc.earliest || least > tc.earliest+slack || most > tc.notBefore || most < tc.notBefore-slack {
				t.Errorf("due after %v to %v, want %v to %v", least, most, tc.earliest, tc.notBefore)
			}
		})
	}
}

func TestRenewalsAreSpreadEvenly(t *testing.T) {
	const secrets, buckets = 5000, 10
	var counts [buckets]int
	for i := range secrets {
		uid := fmt.Sprintf("c0000000-0000-4000-8000-%012d", i)
		counts[int(seedShare(uid)*buckets)]++
		if seedShare(uid) != seedShare(uid) {
			t.Fatal("another share the second time")
		}
	}
	for i, n := range counts {
		if n < secrets/buckets*7/10 || n > secrets/buckets*13/10 {
			t.Errorf("%d of %d secrets are in part %d of %d", n, secrets, i, buckets)
		}
	}
}

func TestRenewInWithAge(t *testing.T) {
	const uid = "a uid"
	day := validityOfLength(24 * time.Hour)
	after := day.RenewAt(uid).Sub(day.Issued)
	const half = 12 * time.Hour
	cases := map[string]struct {
		age   time.Duration
		clock time.Duration // how far ours is ahead of the API server's
		want  time.Duration
	}{
		"clocks that agree":               {want: after},
		"ours is five minutes ahead":      {clock: 5 * time.Minute, want: after - 5*time.Minute},
		"ours is a minute behind":         {clock: -time.Minute, want: after},
		"ours is a year ahead":            {clock: 365 * 24 * time.Hour, want: half},
		"some time later":                 {age: time.Hour, want: after - time.Hour},
		"half of it over, with ours gone": {age: half, clock: 365 * 24 * time.Hour},
		"it is due":                       {age: after},
		"it was due, with ours behind":    {age: after + time.Minute, clock: -24 * time.Hour, want: -time.Minute},
		"not valid yet":                   {clock: -61 * time.Second, want: time.Minute},
		"not valid for two days":          {clock: -48 * time.Hour, want: time.Minute},
		"not valid half a minute later":   {age: 30 * time.Second, clock: -48 * time.Hour, want: 30 * time.Second},
		"not valid a minute later":        {age: time.Minute, clock: -48 * time.Hour},
		"not valid two minutes later":     {age: 2 * time.Minute, clock: -48 * time.Hour, want: -time.Minute},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			now := day.Issued.Add(tc.age + tc.clock)
			if got := max(day.RenewInWithAge(tc.age, now, uid), -time.Minute); got != tc.want {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

// TestNotYetValid: the clock of the control plane was set back since the token was issued.
func TestNotYetValid(t *testing.T) {
	day := validityOfLength(24 * time.Hour)
	for ahead, want := range map[time.Duration]bool{
		-time.Hour: false, 0: false, time.Minute: false, time.Minute + time.Nanosecond: true, 48 * time.Hour: true,
	} {
		now := day.Issued.Add(-ahead)
		if got := day.NotYetValid(now); got != want {
			t.Errorf("issued %v ahead: %t, want %t", ahead, got, want)
		}
		if got := day.RenewIn(now, "a uid") <= 0; got != want {
			t.Errorf("issued %v ahead: due is %t, want %t", ahead, got, want)
		}
	}
}

func TestRequeueAfter(t *testing.T) {
	cases := map[string]struct{ lifetime, in, want time.Duration }{
		"soon":                {lifetime: 24 * time.Hour, in: time.Second, want: time.Second},
		"not for long":        {lifetime: 24 * time.Hour, in: 10 * time.Hour, want: 144 * time.Minute},
		"a token of a minute": {lifetime: time.Minute, in: 40 * time.Second, want: 6 * time.Second},
		"long overdue":        {lifetime: time.Hour, in: -time.Hour, want: -time.Hour},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := validityOfLength(tc.lifetime).RequeueAfter(tc.in); (got - tc.want).Abs() > time.Millisecond {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}
