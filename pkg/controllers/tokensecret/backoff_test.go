package tokensecret

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/internal/workqueue"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

// The caches stay the same in these tests, as if another client undid each write.

func TestAWriteThatIsUndoneIsRepeatedEverMoreSlowly(t *testing.T) {
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
		"deleting a secret that is created again": {
			in:   func(f fixture) { f.cache(t, secret()) },
			want: "delete secrets team/s",
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, apiServer{})
			tc.in(f)
			testkit.ExpectWriteBackoff(t, f.clock, func() int { return len(f.writes()) }, func() time.Duration {
				requeueAfter, err := f.sync(f.context(t), objectName("team/s"))
				if err != nil {
					t.Fatal(err)
				}
				return requeueAfter
			})
			for _, got := range f.writes() {
				if got != tc.want {
					t.Errorf("%s, want %s", got, tc.want)
				}
			}
			events := slices.DeleteFunc(testkit.Events(f.recorder), func(e string) bool { return strings.Contains(e, api.ReasonDeletedTokenSecret) })
			if len(events) != 1 {
				t.Errorf("events %v", events)
			}
		})
	}
}

func TestANewCAIsWrittenAtALimitedRate(t *testing.T) {
	f := newFixture(t, apiServer{}, testkit.ServiceAccount("team/robot"))
	const n = repairsAtOnce + 2
	for i := range n {
		old := secret(testkit.WithData("ca.crt", "old"))
		old.Name = fmt.Sprint("s", i)
		f.cache(t, old)
	}
	var waits []time.Duration
	for i := range n {
		requeueAfter, err := f.sync(f.context(t), objectName(fmt.Sprint("team/s", i)))
		if err != nil && !errors.Is(err, workqueue.ErrRequeueLater) {
			t.Fatal(err)
		}
		if requeueAfter > 0 {
			waits = append(waits, requeueAfter)
		}
	}
	if diff := cmp.Diff([]time.Duration{5 * time.Millisecond, 10 * time.Millisecond}, waits); diff != "" {
		t.Errorf("waits (-want +got):\n%s", diff)
	}
	if got := len(f.writes()); got != repairsAtOnce {
		t.Errorf("%d writes at once", got)
	}
}
