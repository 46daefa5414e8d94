package signingkey

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/internal/workqueue"
	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/testkit/leaks"
	"github.com/sakeeper/sakeeper/pkg/token"
)

func TestMain(m *testing.M) { leaks.Main(m) }

var errBoom = errors.New("boom")

// fixture is a Check that runs against a fake API server.
type fixture struct {
	*Check
	t        *testing.T
	recorder *record.FakeRecorder
	registry *prometheus.Registry

	mu sync.Mutex
	// code and body are the API server's response, and err is the error if there is none.
	code int
	body string
	err  error
	// takes is how long the next response takes.
	takes time.Duration
	// keys are those of the controllers, and signs are those of the signer if they differ.
	keys, signs *keys.Set
	signErr     error
	requests    []string
	signings    int
	changes     atomic.Int64 // calls of the function of OnChange
}

// publishes is the body of a response with the keys of set.
func publishes(t *testing.T, set *keys.Set) string {
	t.Helper()
	body, err := json.Marshal(set.JWKS())
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func idOf(key string) string { return testkit.Keys(key).Signing().PublicKey().ID() }

// run calls do with a check of the key p256 that runs in the fake time of synctest, against an API
// server that publishes that key unless change says otherwise.
func run(t *testing.T, change func(*fixture, *Config), do func(*fixture)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := &fixture{
			t: t, recorder: record.NewFakeRecorder(10), registry: prometheus.NewRegistry(),
			code: http.StatusOK, body: publishes(t, testkit.Keys("p256", "rsa2048")), keys: testkit.Keys("p256"),
		}
		client, err := kubernetes.NewForConfig(&rest.Config{Host: "https://api.example", Transport: f, QPS: -1})
		if err != nil {
			t.Fatal(err)
		}
		cfg := Config{
			Client: client.CoreV1().RESTClient(), Keys: f.currentKeys, Signer: f, Recorder: f.recorder,
			Process: &corev1.ObjectReference{Kind: "Lease", Name: "process"}, Clock: clock.RealClock{}, Registerer: f.registry,
		}
		change(f, &cfg)
		if f.Check, err = New(cfg); err != nil {
			t.Fatal(err)
		}
		f.OnChange(func() { f.changes.Add(1) })
		defer testkit.Start(t.Context(), t, f.Run)()
		synctest.Wait()
		do(f)
	})
}

func asUsual(*fixture, *Config) {}

func (f *fixture) currentKeys() *keys.Set {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.keys
}

// RoundTrip implements [http.RoundTripper].
func (f *fixture) RoundTrip(r *http.Request) (*http.Response, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if takes := f.takes; takes > 0 {
		f.takes = 0
		f.mu.Unlock()
		time.Sleep(takes)
		f.mu.Lock()
	}
	f.requests = append(f.requests, r.Method+" "+r.URL.Path+" "+r.Header.Get("Accept"))
	if f.err != nil {
		return nil, f.err
	}
	return &http.Response{StatusCode: f.code, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(f.body)), Request: r}, nil
}

// SignLegacy implements [Signer].
func (f *fixture) SignLegacy(ctx context.Context, claims token.LegacyClaims) (string, error) {
	f.mu.Lock()
	set, err := f.keys, f.signErr
	if f.signs != nil {
		set = f.signs
	}
	f.signings++
	f.mu.Unlock()
	if err != nil {
		return "", err
	}
	return token.NewSigner(func() *keys.Set { return set }).SignLegacy(ctx, claims)
}

// set changes the fake API server or the keys, and returns how many requests there were.
func (f *fixture) set(change func()) (requests int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
	return len(f.requests)
}

func (f *fixture) sign() (time.Duration, error) {
	f.t.Helper()
	claims := token.LegacyClaims{Namespace: "team", SecretName: "s", ServiceAccountName: "robot", ServiceAccountUID: string(testkit.AccountUID)}
	compact, requeueAfter, err := f.Sign(f.t.Context(), claims)
	if (compact == "") != (err != nil) {
		f.t.Errorf("a token (%t) and the error %v", compact != "", err)
	}
	return requeueAfter, err
}

// expectWritten: tokens are written, and the check is ready.
func (f *fixture) expectWritten() {
	f.t.Helper()
	if _, err := f.sign(); err != nil {
		f.t.Errorf("sign: %v", err)
	}
	if err := f.Ready(); err != nil {
		f.t.Errorf("not ready: %v", err)
	}
}

// expectRefused: no token is written, for the reason why, and the key is queued later.
func (f *fixture) expectRefused(why string) {
	f.t.Helper()
	if requeueAfter, err := f.sign(); requeueAfter != 0 || !errors.Is(err, workqueue.ErrRequeueLater) {
		f.t.Errorf("sign: again after %v, %v", requeueAfter, err)
	}
	if err := f.Ready(); err == nil || err.Error() != "no tokens are written: "+why {
		f.t.Errorf("ready: %v, want %q", err, why)
	}
	if f.signings > 0 {
		f.t.Errorf("%d tokens were signed", f.signings)
	}
}

func advance(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}
