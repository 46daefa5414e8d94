package tokensecret

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

func TestAWriteThatIsUndoneIsRepeatedEverMoreSlowly(t *testing.T) {
	cases := map[string]struct {
		in   []runtime.Object
		want string
	}{
		"filling":    {in: []runtime.Object{robot(), empty()}, want: "update secrets team/s"},
		"another CA": {in: []runtime.Object{robot(), secret(testkit.WithData("ca.crt", "theirs"))}, want: "patch secrets team/s"},
		"deleting a secret that is created again": {in: []runtime.Object{secret()}, want: "delete secrets team/s"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, tc.in...)
			f.undo()
			var writes []string
			testkit.ExpectWriteBackoff(t, f.clock, func() int {
				writes = append(writes, f.writes()...)
				return len(writes)
			}, func() time.Duration { return f.syncOnce(t, "s") })
			if got := slices.Compact(writes); !slices.Equal(got, []string{tc.want}) {
				t.Errorf("writes %v, want %s", got, tc.want)
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
		f := newFixture(t, robot())
		f.undo()
		for i := range repairs {
			f.cache(t, secret(testkit.WithData("ca.crt", "old"), named(fmt.Sprint("s", i))))
		}
		for i := range fills {
			f.cache(t, empty(named(fmt.Sprint("empty", i))))
		}
		defer testkit.Start(f.context(t), t, f.runQueue)()
		filled, repaired := 0, 0
		expectWrites := func(after time.Duration, least, most int) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			for _, write := range f.writes() {
				if strings.HasPrefix(write, "update secrets team/empty") {
					filled++
				} else {
					repaired++
				}
			}
			if filled != fills || repaired < least || repaired > most {
				t.Errorf("%d filled and %d repaired, want %d and %d to %d", filled, repaired, fills, least, most)
			}
		}
		f.EnqueueAll()
		expectWrites(0, 1000-fills, 1000)
		expectWrites(time.Second, 1200-fills, 1200)
		expectWrites(5*time.Second, repairs, repairs)
	})
}
