package tokensecret

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

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
				if err != nil && !errors.Is(err, workqueue.ErrRequeueLater) {
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

// Secrets without a token, which may have waited for a key, do not wait for the others.
func TestANewCAIsWrittenOverSomeTime(t *testing.T) {
	const repairs, fills = 2000, 20
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, apiServer{}, robot())
		for i := range repairs {
			old := secret(testkit.WithData("ca.crt", "old"))
			old.Name = fmt.Sprint("s", i)
			f.cache(t, old)
		}
		for i := range fills {
			f.cache(t, testkit.Secret(fmt.Sprint("team/empty", i), testkit.WithAccount("robot")))
		}
		defer testkit.Start(f.context(t), t, f.runQueue)()
		expectWrites := func(after time.Duration, least, most int) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			filled := 0
			for _, write := range f.writes() {
				if strings.HasPrefix(write, "update secrets team/empty") {
					filled++
				}
			}
			if repaired := len(f.writes()) - filled; filled != fills || repaired < least || repaired > most {
				t.Errorf("%d filled and %d repaired, want %d and %d to %d", filled, repaired, fills, least, most)
			}
		}
		f.EnqueueAll()
		expectWrites(0, 1000-fills, 1000)
		expectWrites(time.Second, 1200-fills, 1200)
		expectWrites(5*time.Second, repairs, repairs)
	})
}
