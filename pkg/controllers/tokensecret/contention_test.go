package tokensecret

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sakeeper/sakeeper/pkg/internal/workqueue"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

// What is cached stays as it is in these tests: whatever is written, somebody undoes.

func TestAWriteThatIsUndoneFiveTimesIsLeft(t *testing.T) {
	unfilled := testkit.Secret("team/s", testkit.WithAccount("robot"))
	cases := map[string]struct {
		in   func(f fixture)
		want string
	}{
		"filling": {
			in:   func(f fixture) { f.cache(t, testkit.ServiceAccount("team/robot")); f.cache(t, unfilled) },
			want: "update secrets team/s",
		},
		"another CA": {
			in: func(f fixture) {
				f.cache(t, testkit.ServiceAccount("team/robot"))
				f.cache(t, secret(testkit.WithData("ca.crt", "theirs")))
			},
			want: "patch secrets team/s",
		},
		"removing what somebody makes again": {
			in:   func(f fixture) { f.cache(t, unfilled) },
			want: "delete secrets team/s",
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, server{})
			tc.in(f)
			var again time.Duration
			for range 10 {
				var err error
				if again, err = f.syncSecret(f.context(t), keyOf("team/s")); err != nil {
					t.Fatal(err)
				}
				f.pass(10 * time.Second)
			}
			if diff := cmp.Diff(slices.Repeat([]string{tc.want}, 5), f.writes()); diff != "" {
				t.Errorf("writes (-want +got):\n%s", diff)
			}
			if again != time.Hour-40*time.Second {
				t.Errorf("looks again after %v", again)
			}
			if events := testkit.Events(f.recorder); len(events) != 1 {
				t.Errorf("events %v", events)
			}
		})
	}
}

func TestANewCAIsAnotherMatterAndPaced(t *testing.T) {
	f := newFixture(t, server{}, testkit.ServiceAccount("team/robot"))
	const n = repairsAtOnce + 2
	for i := range n {
		old := secret(testkit.WithData("ca.crt", "old"))
		old.Name = fmt.Sprint("s", i)
		f.cache(t, old)
	}
	var later []time.Duration
	for i := range n {
		again, err := f.syncSecret(f.context(t), keyOf(fmt.Sprint("team/s", i)))
		if err != nil && !errors.Is(err, workqueue.ErrRequeueLater) {
			t.Fatal(err)
		}
		if again > 0 {
			later = append(later, again)
		}
	}
	if diff := cmp.Diff([]time.Duration{5 * time.Millisecond, 10 * time.Millisecond}, later); diff != "" {
		t.Errorf("put off (-want +got):\n%s", diff)
	}
	if got := len(f.writes()); got != repairsAtOnce {
		t.Errorf("%d writes at once", got)
	}
}
