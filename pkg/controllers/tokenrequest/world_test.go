package tokenrequest

import (
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
)

// world is an API server in a synctest bubble, whose time is the server's, and at most
// one process with the controller. No consumer must ever read an expired token, unless
// the test expects it.
type world struct {
	*testing.T
	*apiServer
	recorder *record.FakeRecorder
	// skew is how far the clock of the process is ahead.
	skew atomic.Int64
	stop func()
	c    *Controller
	// client is what the process writes with; nil: the API server.
	client Client

	mu      sync.Mutex
	expired []string // what was wrong
}

func newWorld(t *testing.T, objects ...runtime.Object) *world {
	t.Helper()
	w := &world{T: t, apiServer: newAPI(time.Now, objects...), recorder: record.NewFakeRecorder(1000)}
	w.onPatch = func(before, _ *corev1.Secret) { w.look(before) }
	return w
}

// look notes when secret has a token that has expired.
func (w *world) look(secret *corev1.Secret) {
	term, ok := noted(reduced(secret)).term()
	if !ok || time.Now().Before(term.Expires) {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.expired = append(w.expired, secret.Name+" expired "+time.Since(term.Expires).String()+" before "+time.Now().UTC().Format(time.RFC3339))
}

// expectNoneExpired looks at what there is, and at all that was replaced.
func (w *world) expectNoneExpired(what string) {
	w.Helper()
	list, err := w.Tracker().List(secretsResource, corev1.SchemeGroupVersion.WithKind("Secret"), "team")
	w.must(err)
	for _, secret := range list.(*corev1.SecretList).Items {
		w.look(&secret)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.expired) > 0 {
		w.Fatalf("%s: %v", what, w.expired)
	}
}

// start starts a process, and forgets the requests of its lists and watches.
func (w *world) start() {
	w.Helper()
	w.c = newController(w.T, w.apiServer, func(cfg *Config) {
		cfg.Recorder, cfg.Clock, cfg.Running = w.recorder, skewed{&w.skew}, clock.RealClock{}
		if w.client != nil {
			cfg.Client = w.client
		}
	})
	// The loop's errors are part of the test: nobody reads them.
	ctx := klog.NewContext(w.Context(), klog.Logger{})
	w.stop = testkit.Start(ctx, w.T, w.c.Run,
		testkit.Informer(w.c.cfg.Namespaces), testkit.Informer(w.c.cfg.Secrets), testkit.Informer(w.c.cfg.ServiceAccounts))
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// expectRequests waits for quiet and compares the requests since the last time, but
// those that read.
func (w *world) expectRequests(what string, want ...string) {
	w.Helper()
	synctest.Wait()
	var got []string
	for _, r := range testkit.Requests(w.Actions()) {
		if r.Verb != "list" && r.Verb != "watch" && r.Verb != "get" {
			got = append(got, r.Verb+" "+r.Resource+" "+r.Name)
		}
	}
	w.ClearActions()
	if diff := cmp.Diff(want, got); diff != "" {
		w.Errorf("%s: requests (-want +got):\n%s", what, diff)
	}
}

// skewed is the clock of a process.
type skewed struct{ offset *atomic.Int64 }

func (c skewed) Now() time.Time                  { return time.Now().Add(time.Duration(c.offset.Load())) }
func (c skewed) Since(t time.Time) time.Duration { return c.Now().Sub(t) }
