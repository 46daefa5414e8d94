package tokensecret

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/testkit/fakeapi"
)

const resigned = "patch secrets team/s" // the one write that replaces a token

// newCheckFixture is a controller with team/s, which has that token. If the token looks dead, it has
// done so for long enough to be reviewed. The cache shows all changes of Secrets.
func newCheckFixture(t *testing.T, compact string, opts ...testkit.Option) fixture {
	t.Helper()
	f := newFixture(t, robot(), secret(append([]testkit.Option{withToken(compact)}, opts...)...))
	f.followSecrets(t)
	f.check(t)
	f.advance(firstReviewDelay)
	return f
}

func (f fixture) followSecrets(t *testing.T) {
	t.Helper()
	f.server.OnChange(func(_, after runtime.Object) {
		if after != nil {
			f.cache(t, after)
		}
	})
}

// check syncs team/s three times, because a review queues it again, and its note too.
func (f fixture) check(t *testing.T) (requeueAfter time.Duration) {
	t.Helper()
	for range 3 {
		requeueAfter = f.syncOnce(t, "s")
	}
	return requeueAfter
}

// checkFor checks the token every minute until there is a write, and returns how long that took.
func (f fixture) checkFor(t *testing.T, d time.Duration) (took time.Duration, writes []string) {
	t.Helper()
	for ; took < d; took += time.Minute {
		if requeueAfter := f.check(t); requeueAfter > reviewInterval {
			t.Fatalf("requeued after %v", requeueAfter)
		}
		if writes = f.writes(); len(writes) > 0 {
			break
		}
		f.advance(time.Minute)
	}
	return took, writes
}

// expect compares what there was since the last call.
func (f fixture) expect(t *testing.T, reviews int, writes ...string) {
	t.Helper()
	if got := len(f.reviewer.reviewed); got != reviews {
		t.Errorf("%d reviews, want %d", got, reviews)
	}
	f.reviewer.reviewed = nil
	expectRequests(t, f.writes(), writes...)
}

func (f fixture) expectStatus(t *testing.T, want tokenStatus) {
	t.Helper()
	set := f.known()
	if got := f.infoOf(f.cached(), testkit.AccountUID, set).status(set.Signing().PublicKey().ID()); got != want {
		t.Errorf("status %d, want %d", got, want)
	}
}

// restarted is another process with the same API server.
func (f fixture) restarted(t *testing.T) fixture {
	t.Helper()
	f.Controller = f.newController(t, f.clock)
	f.cache(t, robot())
	f.cache(t, fakeapi.Get[corev1.Secret](f.server, "team/s"))
	f.followSecrets(t)
	return f
}
