package tokenrequest

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/testkit/fakeapi"
)

// runningController is a fake API server in a synctest bubble, whose time is the server's,
// and at most one process with the controller. It records expired tokens in Secrets.
type runningController struct {
	*testing.T
	*fakeAPIServer
	recorder *record.FakeRecorder
	// skew is how far the clock of the process is ahead.
	skew       atomic.Int64
	stop       func()
	controller *Controller

	mu      sync.Mutex
	expired []string // descriptions of expired tokens
}

func newRunningController(t *testing.T, objects ...runtime.Object) *runningController {
	t.Helper()
	r := &runningController{T: t, fakeAPIServer: newFakeAPIServer(time.Now, objects...), recorder: record.NewFakeRecorder(1000)}
	r.onPatch = func(before, _ *corev1.Secret) { r.checkExpired(before) }
	return r
}

// run runs test in simulated time, with a process that serves team/s, which asks for a token that
// opts change.
func run(t *testing.T, test func(*testing.T, *runningController), opts ...testkit.Option) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newRunningController(t, served(), robot(), managed(opts...))
		r.start()
		synctest.Wait()
		test(t, r)
		r.stop()
	})
}

// hour is the lifetime of tokens in tests that wait for renewals.
func hour() testkit.Option { return with("lifetime", "1h") }

// checkExpired records secret if its token has expired.
func (r *runningController) checkExpired(secret *corev1.Secret) {
	term, ok := resultsOn(reduced(secret)).term()
	if !ok || time.Now().Before(term.Expires) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.expired = append(r.expired, secret.Name+" expired "+time.Since(term.Expires).String()+" before "+time.Now().UTC().Format(time.RFC3339))
}

// expectNoneExpired fails if a token has expired, or had when it was replaced.
func (r *runningController) expectNoneExpired(what string) {
	r.Helper()
	for _, secret := range fakeapi.List[corev1.Secret](r.Server, "team") {
		r.checkExpired(secret)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.expired) > 0 {
		r.Fatalf("%s: %v", what, r.expired)
	}
}

// start starts a process.
func (r *runningController) start() {
	r.Helper()
	r.controller = newController(r.T, r.fakeAPIServer, func(cfg *Config) {
		cfg.Recorder, cfg.Clock, cfg.Monotonic = r.recorder, skewed{&r.skew}, clock.RealClock{}
	})
	// Errors are part of the test, so they are not logged.
	ctx := klog.NewContext(r.Context(), klog.Logger{})
	r.stop = testkit.Start(ctx, r.T, r.controller.Run,
		testkit.Informer(r.controller.cfg.Namespaces), testkit.Informer(r.controller.cfg.Secrets), testkit.Informer(r.controller.cfg.ServiceAccounts))
}

// expectRequests waits until all goroutines are idle, and compares the writes since the
// last call.
func (r *runningController) expectRequests(what string, want ...string) {
	r.Helper()
	synctest.Wait()
	got := summaryOf(slices.DeleteFunc(testkit.Requests(r.Actions()), func(request testkit.Request) bool {
		return request.Verb == "list" || request.Verb == "watch" || request.Verb == "get"
	}))
	r.ClearActions()
	if diff := cmp.Diff(want, got); diff != "" {
		r.Errorf("%s: requests (-want +got):\n%s", what, diff)
	}
}

// skewed is a clock that is ahead by offset.
type skewed struct{ offset *atomic.Int64 }

func (c skewed) Now() time.Time                  { return time.Now().Add(time.Duration(c.offset.Load())) }
func (c skewed) Since(t time.Time) time.Duration { return c.Now().Sub(t) }
