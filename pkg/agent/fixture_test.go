package agent

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// world is an API server that grants tokens, and an agent with a file "token".
type world struct {
	t     *testing.T
	dir   string
	file  string
	cfg   Config
	agent *Agent

	mu sync.Mutex
	// granted is the lifetime that the API server grants; skew is how far its clock is ahead;
	// down is its answer to every request.
	granted time.Duration
	skew    time.Duration
	down    error
	asked   []time.Time
	specs   []authenticationv1.TokenRequestSpec
	hooked  int
	hookErr error
	// server is the API server's clock as the agent knows it: corrected by each response.
	server followingClock
}

// followingClock is a clock of this machine that is corrected by the responses of the API server,
// as [kube.ServerClock] is.
type followingClock struct {
	local  clock.PassiveClock
	offset atomic.Int64
}

func (c *followingClock) Now() time.Time { return c.local.Now().Add(time.Duration(c.offset.Load())) }

func (c *followingClock) Since(t time.Time) time.Duration { return c.Now().Sub(t) }

func newWorld(t *testing.T, change ...func(*Config)) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), granted: time.Hour}
	w.file = filepath.Join(w.dir, "token")
	client := fake.NewClientset()
	client.PrependReactor("create", "serviceaccounts", w.grant)
	w.cfg = Config{
		Client: client.CoreV1(), Namespace: "team", ServiceAccount: "robot", Tokens: []Token{{File: w.file}},
		Lifetime: time.Hour, Writer: RenameWriter{mine()}, Hooks: []Hook{w}, Clock: &w.server, Local: clock.RealClock{}, Registerer: prometheus.NewRegistry(),
	}
	for _, c := range change {
		c(&w.cfg)
	}
	w.server.local = w.cfg.Local
	var err error
	w.agent, err = New(w.cfg)
	must(t, err)
	return w
}

func (w *world) grant(action clienttesting.Action) (bool, runtime.Object, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked = append(w.asked, time.Now())
	w.server.offset.Store(int64(time.Now().Add(w.skew).Sub(w.cfg.Local.Now())))
	request, ok := action.(clienttesting.CreateAction).GetObject().(*authenticationv1.TokenRequest)
	if !ok || action.GetNamespace() != "team" || action.GetSubresource() != "token" {
		w.t.Errorf("asked for %v", action)
	}
	w.specs = append(w.specs, request.Spec)
	if w.down != nil {
		return true, nil, w.down
	}
	issued := time.Now().Add(w.skew)
	payload := fmt.Sprintf(`{"iat":%d,"exp":%d,"jti":"%d"}`, issued.Unix(), issued.Add(w.granted).Unix(), len(w.asked))
	request.Status.Token = "e30." + base64.RawURLEncoding.EncodeToString([]byte(payload)) + ".c2ln"
	return true, request, nil
}

// Run implements Hook.
func (w *world) Run(context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hooked++
	return w.hookErr
}

func (w *world) change(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

// expires returns when the token in the file expires, by the clock of the agent.
func (w *world) expires() time.Time {
	w.t.Helper()
	content, err := os.ReadFile(w.file)
	must(w.t, err)
	claims, err := token.UnverifiedBoundClaims(string(content))
	must(w.t, err)
	return claims.Validity.Expires.Add(-w.skew)
}

func (w *world) expectAsked(want int) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.asked) != want {
		w.t.Errorf("%d tokens were asked for, want %d", len(w.asked), want)
	}
}

// live runs the agent of a new world until f returns.
func live(t *testing.T, f func(w *world), change ...func(*Config)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, change...)
		stop := testkit.Start(t.Context(), t, w.agent.Run)
		defer func() {
			stop()
			synctest.Wait()
		}()
		synctest.Wait()
		f(w)
	})
}

// pass waits in the virtual time of the bubble.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}
