package boundtoken

import (
	"fmt"
	"testing"
	"time"

	"github.com/sakeeper/sakeeper/pkg/testkit"
)

func termOfLength(d time.Duration) Term { return Term{testkit.Instant(), testkit.Instant().Add(d)} }

func TestDue(t *testing.T) {
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
				after := termOfLength(tc.in).Due(fmt.Sprint("uid ", i)).Sub(testkit.Instant())
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
		counts[int(share(uid)*buckets)]++
		if share(uid) != share(uid) {
			t.Fatal("another share the second time")
		}
	}
	for i, n := range counts {
		if n < secrets/buckets*7/10 || n > secrets/buckets*13/10 {
			t.Errorf("%d of %d secrets are in part %d of %d", n, secrets, i, buckets)
		}
	}
}

func TestDueOfATokenOfOurOwn(t *testing.T) {
	const uid = "a uid"
	day, start := termOfLength(24*time.Hour), testkit.Instant()
	due := day.Due(uid)
	cases := map[string]struct {
		in   time.Time // when it was asked for
		want time.Time
	}{
		"clocks that agree":           {in: start, want: due},
		"ours is five minutes ahead":  {in: start.Add(5 * time.Minute), want: due},
		"ours is five minutes behind": {in: start.Add(-5 * time.Minute), want: due.Add(-5 * time.Minute)},
		"ours is a year ahead":        {in: start.AddDate(1, 0, 0), want: start.AddDate(1, 0, 0).Add(12 * time.Hour)},
		"ours is a year behind":       {in: start.AddDate(-1, 0, 0), want: due.Add(start.AddDate(-1, 0, 0).Sub(start))},
		"ours is as far as it may be": {in: start.Add(due.Sub(start) - 12*time.Hour), want: due},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := day.DueSince(tc.in, uid); !got.Equal(tc.want) {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

func TestLook(t *testing.T) {
	day, start := termOfLength(24*time.Hour), testkit.Instant()
	due := day.Due("a uid")
	if got, want := day.Look(due.Add(-time.Second), due), time.Second; got != want {
		t.Errorf("a second before it is due: %v, want %v", got, want)
	}
	if got, want := day.Look(start, due), 144*time.Minute; (got - want).Abs() > time.Second {
		t.Errorf("long before it is due: %v, want %v", got, want)
	}
}
