package tokenrequest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/cabundle"
	"github.com/sakeeper/sakeeper/pkg/internal/workqueue"
	"github.com/sakeeper/sakeeper/pkg/kube"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// history is what happens to team/s over years: sync and the API server are the real
// ones of this package and its tests, the loop around them is played, because a real work
// queue ticks twice a second. Every random choice comes from one seed.
type history struct {
	*testing.T
	*apiServer
	random   *rand.Rand
	lifetime time.Duration

	// server is the API server's clock, process that of the process, ahead by skew, and
	// running the one that does not run while its machine sleeps.
	server, process, running *clocktesting.FakePassiveClock
	skew, slept              time.Duration
	// c is the process, nil while there is none; its next sync is at at.
	c        *Controller
	at       time.Time
	failures int
	account  *corev1.ServiceAccount
	ca       cabundle.Bundle
	// shown is the version of the Secret that the cache has.
	shown string
	// renewals count tokens that were written, and lost those that could not be.
	renewals, lost, syncs int
}

func newHistory(t *testing.T, seed uint64, lifetime time.Duration) *history {
	t.Helper()
	h := &history{
		T: t, random: rand.New(rand.NewPCG(seed, 1)), lifetime: lifetime, account: robot(), ca: testkit.Bundle(),
		server:  clocktesting.NewFakePassiveClock(testkit.Instant().Add(time.Hour)),
		process: clocktesting.NewFakePassiveClock(testkit.Instant()),
		running: clocktesting.NewFakePassiveClock(testkit.Instant()),
	}
	h.apiServer = newAPI(h.server.Now, served(), managed(with("lifetime", lifetime.String()), testkit.WithUID(types.UID(fmt.Sprint("secret ", seed)))))
	h.onPatch = func(_, _ *corev1.Secret) { h.renewals++ }
	h.start()
	t.Cleanup(h.end)
	return h
}

// start starts a process that knows nothing but what the API server has.
func (h *history) start() {
	h.c = newController(h.T, h.apiServer, func(cfg *Config) {
		cfg.Recorder, cfg.Clock, cfg.Running, cfg.CA = &record.FakeRecorder{}, h.process, h.running, func() cabundle.Bundle { return h.ca }
	})
	h.must(h.c.cfg.Namespaces.GetStore().Add(served()))
	h.failures, h.shown = 0, ""
	h.show()
}

func (h *history) end() {
	if h.c != nil {
		fixture{Controller: h.c}.end()
		h.c = nil
	}
}

// show lets the cache catch up.
func (h *history) show() {
	if h.c == nil {
		return
	}
	h.must(h.c.cfg.ServiceAccounts.GetStore().Add(h.account))
	if secret := h.secret(); secret.ResourceVersion != h.shown {
		h.must(h.c.cfg.Secrets.GetStore().Add(reduced(secret)))
		h.shown = secret.ResourceVersion
	}
	h.at = h.server.Now()
}

func (h *history) must(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

// pass lets d pass.
func (h *history) pass(d time.Duration) {
	until := h.server.Now().Add(d)
	for h.c != nil && !h.at.After(until) {
		h.server.SetTime(h.at)
		h.turn()
	}
	h.server.SetTime(until)
}

// maxDelay is that of the loop between two tries.
const maxDelay = 5 * time.Minute

// turn is one sync, as the loop would do it.
func (h *history) turn() {
	now := h.server.Now()
	h.watch()
	h.syncs++
	before := h.secret()
	ctx := klog.NewContext(h.Context(), klog.Logger{})
	again, err := h.c.sync(ctx, toolscache.ObjectName{Namespace: "team", Name: "s"})
	h.ClearActions()
	switch {
	case errors.Is(err, workqueue.ErrRequeueLater):
		h.at = now.Add(again)
		return
	case err != nil:
		delay := min(5*time.Millisecond<<min(h.failures, 20), maxDelay)
		if retry := retryAfter(left(h.c.gather(reduced(before))), kube.IsPermanent(err)); retry > 0 {
			delay = min(delay, retry)
		}
		h.failures++
		h.at = now.Add(delay)
		return
	case again > 0:
		h.at = now.Add(again)
	default:
		h.at = now.Add(1000000 * time.Hour)
	}
	h.failures = 0
	if after := h.secret(); after.ResourceVersion != h.shown {
		// The event of a write comes when it comes.
		h.server.SetTime(now.Add(h.upTo(time.Second)))
		h.show()
	}
}

// upTo is a random time.
func (h *history) upTo(d time.Duration) time.Duration {
	return time.Duration(h.random.Int64N(int64(d) + 1))
}

func (h *history) term() token.Validity {
	term, ok := noted(reduced(h.secret())).term()
	if !ok {
		h.Fatal("it has no token")
	}
	return term
}

// expectNoneReadExpired fails when somebody could have read an expired token by now.
func (h *history) expectNoneReadExpired(step int, what string) {
	h.Helper()
	if term := h.term(); !h.server.Now().Before(term.Expires) {
		h.Fatalf("step %d, %s: a token from %v expired at %v, and it is %v (skew %v)", step, what, term.Issued, term.Expires, h.server.Now(), h.skew)
	}
}

// expectCounts fails when a renewal took more than one token.
func (h *history) expectCounts(conflicts int) {
	h.Helper()
	if h.granted != h.patches || h.granted != h.renewals+h.lost+conflicts {
		h.Errorf("%d tokens were issued and %d patches sent for %d renewals, %d lost writes and %d conflicts", h.granted, h.patches, h.renewals, h.lost, conflicts)
	}
}

var errOutage = errors.New("connection refused")

// outage is an API server that cannot be reached.
func (h *history) outage(d time.Duration) {
	h.change(func(a *apiServer) { a.tokensErr = errOutage })
	h.pass(d)
	h.change(func(a *apiServer) { a.tokensErr = nil })
}

// halfOutage is one that issues tokens and writes nothing.
func (h *history) halfOutage(d time.Duration) {
	before := h.patches
	h.change(func(a *apiServer) { a.writesErr = errOutage })
	h.pass(d)
	h.change(func(a *apiServer) { a.writesErr = nil })
	h.lost += h.patches - before
}

// noticed is how long it may take until a clock that jumps is.
const noticed = 6 * time.Second

// sleep is a time in which the machine of the process does.
func (h *history) sleep(d time.Duration) {
	h.watch()
	h.server.SetTime(h.server.Now().Add(d))
	h.slept += d
	h.watch()
	h.at = h.server.Now().Add(h.upTo(noticed))
}

// watch sets the clocks of the process, and has it look at them.
func (h *history) watch() {
	h.process.SetTime(h.server.Now().Add(h.skew))
	h.running.SetTime(h.server.Now().Add(-h.slept))
	if h.c != nil {
		h.c.watch.Elapsed()
	}
}

// jump sets the clock of the process.
func (h *history) jump(skew time.Duration) {
	h.skew = skew
	h.watch()
	h.at = h.server.Now().Add(h.upTo(noticed))
}

// absence is a time without a process.
func (h *history) absence(d time.Duration) {
	h.end()
	h.pass(d)
	h.skew = h.upTo(time.Second)
	h.start()
}

// syncs is how long a history is.
const syncs = 5000

func lifetimes() map[string]time.Duration {
	return map[string]time.Duration{"an hour": time.Hour, "five hours": 5 * time.Hour, "a day": 24 * time.Hour, "a month": 720 * time.Hour}
}

// TestNoConsumerReadsAnExpiredToken: restarts, outages and sleep of up to 10 % of a lifetime
// with a minute between them, clocks that differ by up to 5 minutes, and a server that
// shortens lifetimes.
func TestNoConsumerReadsAnExpiredToken(t *testing.T) {
	for name, lifetime := range lifetimes() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHistory(t, uint64(lifetime), lifetime)
			began := h.server.Now()
			h.pass(time.Second)
			happened := map[string]int{}
			granted := func() time.Duration { return h.term().Lifetime() } // what 10 % are of
			rotations := 0
			for step := 0; h.syncs < syncs; step++ {
				h.pass(time.Minute + h.upTo(granted()/2))
				h.expectNoneReadExpired(step, "nothing")
				what := ""
				switch h.random.IntN(8) {
				case 0:
					what = "a restart"
					h.end()
					h.pass(h.upTo(granted() / 10))
					h.skew = h.upTo(10*time.Minute) - 5*time.Minute
					h.watch()
					h.start()
				case 1:
					what = "an outage"
					h.outage(h.upTo(granted() / 10))
				case 2:
					what = "an outage of writes"
					h.halfOutage(h.upTo(granted() / 10))
				case 3:
					what = "a clock that is set"
					h.jump(h.upTo(10*time.Minute) - 5*time.Minute)
				case 4:
					what = "another longest lifetime"
					longest := time.Hour + h.upTo(lifetime)
					h.change(func(a *apiServer) { a.most = longest })
				case 5:
					what = "a rotation"
					rotations++
					h.must(h.set(func(s *corev1.Secret) { s.Annotations[api.RotateAnnotation] = fmt.Sprint(rotations) }))
					h.show()
				case 6:
					what = "a sleep"
					h.sleep(h.upTo(granted() / 10))
				case 7:
					what = "another account"
					h.account = robot(testkit.WithUID(types.UID(fmt.Sprint("account ", step))))
					h.show()
				}
				happened[what]++
				h.expectNoneReadExpired(step, what)
			}
			h.expectCounts(0)
			t.Logf("%.1f years, %d renewals, %v", h.server.Now().Sub(began).Hours()/24/365, h.renewals, happened)
		})
	}
}

// TestNothingExpiresThatCouldHaveBeenRenewed: outages and absences of any length. Once
// nothing has been in the way for as long as a retry may wait, no token is expired, and
// minutes later none is due.
func TestNothingExpiresThatCouldHaveBeenRenewed(t *testing.T) {
	all := lifetimes()
	all["ten minutes"] = 10 * time.Minute
	delete(all, "a month") // the tries of an outage that is as long would be all that happens
	for name, lifetime := range all {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHistory(t, uint64(lifetime)+1, lifetime)
			h.pass(time.Second)
			var overdue []string
			for step := 0; h.syncs < syncs; step++ {
				trouble := h.upTo(lifetime / 10)
				if h.random.IntN(5) == 0 {
					trouble = h.upTo(3 * lifetime)
				}
				[]func(time.Duration){h.outage, h.halfOutage, h.absence, h.sleep}[h.random.IntN(4)](trouble)
				// Of a token that another process has asked for only the claims are known;
				// that the clock is not far off then is the work of ServerClock.
				if own := h.c.gather(reduced(h.secret())).age != nil; own && h.random.IntN(3) == 0 {
					h.jump(h.upTo(48*time.Hour) - 24*time.Hour)
				}
				h.pass(retryOutage + 2*time.Second) // the event of a write takes up to one
				h.expectNoneReadExpired(step, "nothing for as long as a retry may wait")
				h.pass(maxDelay)
				for range h.random.IntN(4) {
					if late := h.server.Now().Sub(h.term().RenewAt(string(h.secret().UID))); late > 2*time.Second {
						overdue = append(overdue, fmt.Sprintf("step %d: due for %v", step, late))
					}
					h.pass(h.upTo(lifetime / 3))
				}
			}
			if diff := cmp.Diff([]string(nil), overdue); diff != "" {
				t.Errorf("overdue (-want +got):\n%s", diff)
			}
			h.expectCounts(0)
			t.Logf("%d renewals, %d lost", h.renewals, h.lost)
		})
	}
}

// TestManySecretsAreRenewedEvenly: 5,000 that were made in one moment. After a week of
// days, no hundredth of a day has more than three times its share.
func TestManySecretsAreRenewedEvenly(t *testing.T) {
	const secrets, windows = 5000, 100
	const lifetime = 24 * time.Hour
	end := testkit.Instant().Add(30 * lifetime)
	var counts [windows]int
	for i := range secrets {
		uid := fmt.Sprintf("c0000000-0000-4000-8000-%012d", i)
		for at := testkit.Instant(); at.Before(end); {
			at = token.Validity{Issued: at, Expires: at.Add(lifetime)}.RenewAt(uid)
			if left := end.Sub(at); left >= 0 && left < lifetime {
				counts[int(left*windows/lifetime)]++
			}
		}
	}
	total, most := 0, 0
	for _, n := range counts {
		total, most = total+n, max(most, n)
	}
	t.Logf("%d renewals in a day, at most %d in a hundredth of it", total, most)
	if most > 3*total/windows {
		t.Errorf("%d of %d renewals fall into one hundredth of a day", most, total)
	}
}
