package tokenrequest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/sakeeper/sakeeper/pkg/cabundle"
	"github.com/sakeeper/sakeeper/pkg/internal/workqueue"
	"github.com/sakeeper/sakeeper/pkg/kube"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// simulation simulates team/s over years with the real sync and the fake API server. It
// simulates the work queue, because a real one ticks twice a second. Every random choice
// comes from one seed.
type simulation struct {
	*testing.T
	*fakeAPIServer
	random   *rand.Rand
	lifetime time.Duration

	// server is the API server's clock, clock that of the process, ahead by skew, and
	// monotonic the one that stops while the machine sleeps.
	server, clock, monotonic *clocktesting.FakePassiveClock
	skew, slept              time.Duration
	// c is the process, or nil; its next sync is at nextSync.
	c        *Controller
	nextSync time.Time
	failures int
	account  *corev1.ServiceAccount
	ca       cabundle.Bundle
	// cachedVersion is the resourceVersion of the cached Secret.
	cachedVersion string
	// renewals counts tokens that were written, and lostWrites those that were not.
	renewals, lostWrites, syncs int
}

func newSimulation(t *testing.T, seed uint64, lifetime time.Duration) *simulation {
	t.Helper()
	s := &simulation{
		T: t, random: rand.New(rand.NewPCG(seed, 1)), lifetime: lifetime, account: robot(), ca: testkit.Bundle(),
		server:    clocktesting.NewFakePassiveClock(testkit.Instant().Add(time.Hour)),
		clock:     clocktesting.NewFakePassiveClock(testkit.Instant()),
		monotonic: clocktesting.NewFakePassiveClock(testkit.Instant()),
	}
	s.fakeAPIServer = newFakeAPIServer(s.server.Now, served(), managed(with("lifetime", lifetime.String()), testkit.WithUID(types.UID(fmt.Sprint("secret ", seed)))))
	s.onPatch = func(_, _ *corev1.Secret) { s.renewals++ }
	s.start()
	t.Cleanup(s.end)
	return s
}

// start starts a process without notes.
func (s *simulation) start() {
	s.c = newController(s.T, s.fakeAPIServer, func(cfg *Config) {
		cfg.Recorder, cfg.Clock, cfg.Monotonic, cfg.CA = &record.FakeRecorder{}, s.clock, s.monotonic, func() cabundle.Bundle { return s.ca }
	})
	s.must(s.c.cfg.Namespaces.GetStore().Add(served()))
	s.failures, s.cachedVersion = 0, ""
	s.updateCache()
}

func (s *simulation) end() {
	if s.c != nil {
		fixture{Controller: s.c}.end()
		s.c = nil
	}
}

// updateCache updates the cache.
func (s *simulation) updateCache() {
	if s.c == nil {
		return
	}
	s.must(s.c.cfg.ServiceAccounts.GetStore().Add(s.account))
	if secret := s.secret(); secret.ResourceVersion != s.cachedVersion {
		s.must(s.c.cfg.Secrets.GetStore().Add(reduced(secret)))
		s.cachedVersion = secret.ResourceVersion
	}
	s.nextSync = s.server.Now()
}

func (s *simulation) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// pass advances the clocks by d, with the syncs that are due.
func (s *simulation) pass(d time.Duration) {
	until := s.server.Now().Add(d)
	for s.c != nil && !s.nextSync.After(until) {
		s.server.SetTime(s.nextSync)
		s.syncOnce()
	}
	s.server.SetTime(until)
}

// maxDelay is the work queue's longest delay between two attempts.
const maxDelay = 5 * time.Minute

// syncOnce is one sync, as the work queue does it.
func (s *simulation) syncOnce() {
	now := s.server.Now()
	s.updateClocks()
	s.syncs++
	before := s.secret()
	ctx := klog.NewContext(s.Context(), klog.Logger{})
	again, err := s.c.sync(ctx, toolscache.ObjectName{Namespace: "team", Name: "s"})
	s.ClearActions()
	switch {
	case errors.Is(err, workqueue.ErrRequeueLater):
		s.nextSync = now.Add(again)
		return
	case err != nil:
		delay := min(5*time.Millisecond<<min(s.failures, 20), maxDelay)
		if retry := maxRetryDelay(remaining(s.c.gather(reduced(before))), kube.IsPermanent(err)); retry > 0 {
			delay = min(delay, retry)
		}
		s.failures++
		s.nextSync = now.Add(delay)
		return
	case again > 0:
		s.nextSync = now.Add(again)
	default:
		s.nextSync = now.Add(1000000 * time.Hour)
	}
	s.failures = 0
	if after := s.secret(); after.ResourceVersion != s.cachedVersion {
		// The event of a write is delayed at random.
		s.server.SetTime(now.Add(s.upTo(time.Second)))
		s.updateCache()
	}
}

// upTo returns a random duration up to d.
func (s *simulation) upTo(d time.Duration) time.Duration {
	return time.Duration(s.random.Int64N(int64(d) + 1))
}

func (s *simulation) currentTerm() token.Validity {
	term, ok := resultsOn(reduced(s.secret())).term()
	if !ok {
		s.Fatal("it has no token")
	}
	return term
}

// expectNotExpired fails if the token has expired.
func (s *simulation) expectNotExpired(step int, what string) {
	s.Helper()
	if term := s.currentTerm(); !s.server.Now().Before(term.Expires) {
		s.Fatalf("step %d, %s: a token from %v expired at %v, and it is %v (skew %v)", step, what, term.Issued, term.Expires, s.server.Now(), s.skew)
	}
}

// expectCounts fails if a renewal took more than one token.
func (s *simulation) expectCounts(conflicts int) {
	s.Helper()
	if s.granted != s.patches || s.granted != s.renewals+s.lostWrites+conflicts {
		s.Errorf("%d tokens were issued and %d patches sent for %d renewals, %d lost writes and %d conflicts", s.granted, s.patches, s.renewals, s.lostWrites, conflicts)
	}
}

var errOutage = errors.New("connection refused")

// outage makes the API server unreachable for d.
func (s *simulation) outage(d time.Duration) {
	s.configure(func(a *fakeAPIServer) { a.tokensErr = errOutage })
	s.pass(d)
	s.configure(func(a *fakeAPIServer) { a.tokensErr = nil })
}

// writeOutage lets the API server issue tokens but fail writes for d.
func (s *simulation) writeOutage(d time.Duration) {
	before := s.patches
	s.configure(func(a *fakeAPIServer) { a.writesErr = errOutage })
	s.pass(d)
	s.configure(func(a *fakeAPIServer) { a.writesErr = nil })
	s.lostWrites += s.patches - before
}

// jumpDetection bounds the time until the controller detects that a clock was set.
const jumpDetection = 6 * time.Second

// sleep suspends the machine of the process for d.
func (s *simulation) sleep(d time.Duration) {
	s.updateClocks()
	s.server.SetTime(s.server.Now().Add(d))
	s.slept += d
	s.updateClocks()
	s.nextSync = s.server.Now().Add(s.upTo(jumpDetection))
}

// updateClocks sets the clocks of the process, and lets it read them.
func (s *simulation) updateClocks() {
	s.clock.SetTime(s.server.Now().Add(s.skew))
	s.monotonic.SetTime(s.server.Now().Add(-s.slept))
	if s.c != nil {
		s.c.stopwatch.Elapsed()
	}
}

// setClock sets the clock of the process.
func (s *simulation) setClock(skew time.Duration) {
	s.skew = skew
	s.updateClocks()
	s.nextSync = s.server.Now().Add(s.upTo(jumpDetection))
}

// downtime is a time without a process.
func (s *simulation) downtime(d time.Duration) {
	s.end()
	s.pass(d)
	s.skew = s.upTo(time.Second)
	s.start()
}
