package tokensecret

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/testkit/fakeapi"
)

func TestTooMany(t *testing.T) {
	cases := map[string]struct {
		inOrphans, inTotal int
		want               bool
	}{
		"none of none":          {},
		"one of ten":            {inOrphans: 1, inTotal: 10},
		"one of nine":           {inOrphans: 1, inTotal: 9, want: true},
		"twenty of a thousand":  {inOrphans: 20, inTotal: 1000},
		"more than twenty":      {inOrphans: 21, inTotal: 1000, want: true},
		"a hundred of a myriad": {inOrphans: 100, inTotal: 10000, want: true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := tooMany(tc.inOrphans, tc.inTotal); got != tc.want {
				t.Errorf("got %t", got)
			}
		})
	}
}

// manyOrphans are more Secrets than a list may leave without their accounts.
const manyOrphans = 30

// orphan is a filled Secret, and missing its account.
func orphan(i int) *corev1.Secret {
	return secret(named(fmt.Sprint("s", i)), testkit.WithAccount(missing(i).Name))
}

func missing(i int) *corev1.ServiceAccount { return robot(named(fmt.Sprint("a", i))) }

// GETs find the accounts after 8 seconds.
func TestAListWithoutAccountsDeletesNothingAtOnce(t *testing.T) {
	cases := map[string]func(f fixture, i int){
		"the first list": func(f fixture, i int) { f.secretListed(f.cachedSecret(orphan(i).Name)) },
		"a later list":   func(f fixture, i int) { f.accountVanished(missing(i)) },
	}
	for name, listed := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixtureWith(t, clock.RealClock{})
				f.cfg.Resign = ResignNever // all have the token of team/s
				for i := range manyOrphans {
					f.cache(t, orphan(i))
					listed(f, i)
				}
				defer testkit.Start(f.context(t), t, f.runQueue)()
				time.Sleep(8 * time.Second)
				for i := range manyOrphans {
					f.addToServer(t, missing(i))
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				expectRequests(t, f.writes())
			})
		})
	}
}

func TestASecretWithoutItsAccountAmongManyIsDeletedAtOnce(t *testing.T) {
	f := newFixture(t, robot(), orphan(0))
	f.secretListed(f.cachedSecret("s0"))
	for i := range 10 {
		f.cache(t, secret(named(fmt.Sprint("right", i))))
		f.secretListed(f.cachedSecret(fmt.Sprint("right", i)))
	}
	f.syncOnce(t, "s0")
	expectRequests(t, f.writes(), "delete secrets team/s0")
}

func TestDoubtedSecretsAreDeletedAtALimitedRate(t *testing.T) {
	var objects []runtime.Object
	for i := range manyOrphans {
		objects = append(objects, orphan(i))
	}
	synctest.Test(t, func(t *testing.T) {
		f, stop := startController(t, objects...)
		defer stop()
		expectDeletions := func(after time.Duration, least, most int) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			if got := len(f.writes()); got < least || got > most {
				t.Errorf("%d Secrets were deleted, want %d to %d", got, least, most)
			}
		}
		expectDeletions(doubtedFor-time.Millisecond, 0, 0) // before the second search
		expectDeletions(time.Second, 9, 11)
		expectDeletions(3*time.Second, manyOrphans-11, manyOrphans-9)
		if left := fakeapi.List[corev1.Secret](f.server, "team"); len(left) > 0 {
			t.Errorf("%d are left", len(left))
		}
	})
}
