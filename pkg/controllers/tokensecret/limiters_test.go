package tokensecret

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sakeeper/sakeeper/pkg/testkit"
)

// newLimitersFixture has n Secrets with tokens of key. Nothing that the controller writes stays.
func newLimitersFixture(t *testing.T, n int, key string) fixture {
	t.Helper()
	objects := []runtime.Object{robot()}
	for i := range n {
		name := fmt.Sprint("s", i)
		objects = append(objects, secret(named(name), withToken(signed(key, ofSecret(name)))))
	}
	f := newFixture(t, objects...)
	f.undo()
	return f
}

// syncAll syncs n Secrets. It returns when they are synced again.
func (f fixture) syncAll(t *testing.T, n int) (requeueAfter []time.Duration) {
	t.Helper()
	for i := range n {
		requeueAfter = append(requeueAfter, f.syncOnce(t, fmt.Sprint("s", i)))
	}
	return requeueAfter
}

func TestResigningIsRateLimited(t *testing.T) {
	f := newLimitersFixture(t, 3, olderKey)
	f.cfg.Resign = ResignAll
	want := []time.Duration{0, 100 * time.Millisecond, 200 * time.Millisecond}
	if diff := cmp.Diff(want, f.syncAll(t, 3)); diff != "" {
		t.Errorf("waits (-want +got):\n%s", diff)
	}
	expectRequests(t, f.writes(), "patch secrets team/s0")
}

// Slots of the rate limiter from one rotation, in which all tokens were to be signed anew, must not
// be used at once by the next rotation.
func TestAKeyThatComesAndGoesCausesNoBurst(t *testing.T) {
	const n = 20
	f := newLimitersFixture(t, n, signingKey)
	f.cfg.Resign = ResignAll
	for range 2 {
		f.tokens.set = testkit.Keys(olderKey, signingKey)
		f.syncAll(t, n)
		if got := f.writes(); len(got) > 1 {
			t.Errorf("signed anew at once: %v", got)
		}
		f.tokens.set = testkit.Keys(signingKey, olderKey)
		f.syncAll(t, n)
		expectRequests(t, f.writes())
		f.advance(time.Hour)
	}
}

func TestReviewsAreRateLimited(t *testing.T) {
	const n = checksAtOnce + 10
	f := newLimitersFixture(t, n, unknownKey)
	f.syncAll(t, n)
	f.advance(firstReviewDelay)
	waiting := 0
	for _, requeueAfter := range f.syncAll(t, n) {
		if requeueAfter > 0 {
			waiting++
		}
	}
	if waiting != 10 {
		t.Errorf("%d wait", waiting)
	}
}
