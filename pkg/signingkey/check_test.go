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

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/internal/workqueue"
	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/token"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

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

const unknownBody = `{"keys":[]}`

func TestWhatTheAPIServerAnswersDecides(t *testing.T) {
	id := idOf("p256")
	for name, tc := range map[string]struct {
		code       int
		body       string
		err        error
		wantWhy    string // empty: tokens are written
		wantResult string
		wantEvent  string
	}{
		"the key is published":          {code: 200, body: publishes(t, testkit.Keys("rsa2048", "p256")), wantResult: "published"},
		"another key is published":      {code: 200, body: publishes(t, testkit.Keys("rsa2048")), wantWhy: "signing key " + id + " is not among the 1 keys that the API server publishes", wantResult: "not_published", wantEvent: "Warning SigningKeyNotPublished No tokens are written: signing key " + id},
		"no key is published":           {code: 200, body: unknownBody, wantWhy: "signing key " + id + " is not among the 0 keys that the API server publishes", wantResult: "not_published", wantEvent: "Warning SigningKeyNotPublished"},
		"the path does not exist":       {code: 404, wantResult: "not_served", wantEvent: "Warning SigningKeyUnchecked The API server does not serve its keys at /openid/v1/jwks"},
		"the path is forbidden":         {code: 403, wantResult: "not_served", wantEvent: "Warning SigningKeyUnchecked"},
		"the credentials are refused":   {code: 401, wantWhy: "the API server does not say whether it knows signing key " + id + ": get /openid/v1/jwks: the server has asked for the client to provide credentials", wantResult: "no_answer"},
		"an internal error":             {code: 500, wantWhy: "the API server does not say whether it knows signing key " + id + ": get /openid/v1/jwks: an error on the server (\"unknown\") has prevented the request from succeeding", wantResult: "no_answer"},
		"another success":               {code: 204, wantWhy: "the API server does not say whether it knows signing key " + id + ": get /openid/v1/jwks: status 204", wantResult: "no_answer"},
		"a page of something else":      {code: 200, body: "<html>", wantWhy: "the API server does not say whether it knows signing key " + id + ": get /openid/v1/jwks: the response is not a JSON document with a list of keys", wantResult: "no_answer"},
		"the connection cannot be made": {err: errBoom, wantWhy: "the API server does not say whether it knows signing key " + id + `: get /openid/v1/jwks: Get "https://api.example/openid/v1/jwks": boom`, wantResult: "no_answer"},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(f *fixture, _ *Config) { f.code, f.body, f.err = tc.code, tc.body, tc.err }, func(f *fixture) {
				if tc.code == http.StatusForbidden {
					f.expectRefused("the API server does not say whether it knows signing key " + id + ": get /openid/v1/jwks is forbidden, which may be because the API server has just started")
					advance(2 * time.Second)
				}
				if tc.wantWhy == "" {
					f.expectWritten()
				} else {
					f.expectRefused(tc.wantWhy)
				}
				advance(time.Minute) // nothing is reported twice
				events := testkit.Events(f.recorder)
				if tc.wantEvent == "" && len(events) > 0 || tc.wantEvent != "" && (len(events) != 1 || !strings.HasPrefix(events[0], tc.wantEvent)) {
					t.Errorf("events %q, want %q", events, tc.wantEvent)
				}
				if got := testutil.ToFloat64(f.result.WithLabelValues(tc.wantResult)); got != 1 || testutil.CollectAndCount(f.result) != 4 {
					t.Errorf("the metric has not %s alone", tc.wantResult)
				}
			})
		})
	}
}

// TestRolesThatComeLate: an API server that has just started forbids the read until it has the roles.
func TestRolesThatComeLate(t *testing.T) {
	run(t, func(f *fixture, _ *Config) { f.code = http.StatusForbidden }, func(f *fixture) {
		advance(20 * time.Second)
		f.expectWritten()
		f.set(func() { f.code, f.body = http.StatusOK, unknownBody })
		advance(maxDelay)
		if err := f.Ready(); err == nil || !strings.Contains(err.Error(), "is not among the 0 keys") {
			t.Errorf("ready: %v, though the key is not published", err)
		}
	})
	run(t, func(f *fixture, _ *Config) { f.code = http.StatusForbidden }, func(f *fixture) {
		advance(startFor + maxDelay)
		before := f.set(func() {})
		advance(interval - maxDelay - time.Second)
		if n := f.set(func() {}) - before; n > 1 {
			t.Errorf("%d requests in five minutes when the read is forbidden for good", n)
		}
	})
}

func TestTheRequestIsForTheOnlyMediaTypeOfKeys(t *testing.T) {
	run(t, asUsual, func(f *fixture) {
		if diff := cmp.Diff([]string{"GET /openid/v1/jwks application/jwk-set+json"}, f.requests); diff != "" {
			t.Errorf("requests (-want +got):\n%s", diff)
		}
	})
}

func TestAKeyThatIsAcceptedAndNotPublishedMayBeUsedUnverified(t *testing.T) {
	run(t, func(f *fixture, cfg *Config) { f.body, cfg.Unverified = unknownBody, true }, func(f *fixture) {
		f.expectWritten()
		if events := testkit.Events(f.recorder); len(events) > 0 {
			t.Errorf("events %q", events)
		}
		f.set(func() { f.code = 500 })
		advance(interval)
		f.expectWritten()
	})
}

func TestNothingIsWrittenBeforeTheFirstAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fixture{t: t, keys: testkit.Keys("p256"), recorder: record.NewFakeRecorder(1)}
		f.Check = &Check{cfg: Config{Keys: f.currentKeys, Signer: f, Clock: clock.RealClock{}}}
		f.expectRefused("the API server was not yet asked whether it knows signing key " + idOf("p256"))
		if set, complete := f.Known(); set != f.keys || complete {
			t.Errorf("known: %v, %t", set, complete)
		}
	})
}

func TestARefusedKeyIsLookedForWithBackoffUntilItIsPublished(t *testing.T) {
	run(t, func(f *fixture, _ *Config) { f.body = unknownBody }, func(f *fixture) {
		f.expectRefused("signing key " + idOf("p256") + " is not among the 0 keys that the API server publishes")
		advance(49 * time.Millisecond)
		if n := f.set(func() {}); n != 1 {
			t.Errorf("%d requests before 50 ms", n)
		}
		advance(time.Hour)
		before := f.set(func() {})
		advance(time.Minute)
		after := f.set(func() { f.body = publishes(t, testkit.Keys("p256")) })
		if after-before != 6 {
			t.Errorf("%d requests in a minute, want one every ten seconds", after-before)
		}
		changes := f.changes.Load()
		advance(maxDelay)
		f.expectWritten()
		if f.changes.Load() != changes+1 {
			t.Errorf("what had to wait was queued %d times, want once", f.changes.Load()-changes)
		}
	})
}

func TestItIsLookedEveryFiveMinutes(t *testing.T) {
	run(t, asUsual, func(f *fixture) {
		changes := f.changes.Load()
		advance(interval - time.Millisecond)
		if n := f.set(func() {}); n != 1 {
			t.Errorf("%d requests before five minutes", n)
		}
		advance(time.Millisecond)
		if n := f.set(func() { f.body = unknownBody }); n != 2 {
			t.Errorf("%d requests after five minutes", n)
		}
		if f.changes.Load() != changes {
			t.Error("the same answer is a change")
		}
		advance(interval)
		f.expectRefused("signing key " + idOf("p256") + " is not among the 0 keys that the API server publishes")
	})
}

func TestAChangedKeyIsLookedForAtOnce(t *testing.T) {
	run(t, asUsual, func(f *fixture) {
		f.set(func() { f.keys, f.err, f.takes = testkit.Keys("rsa2048"), errBoom, time.Second })
		f.Reset()
		synctest.Wait()
		f.expectRefused("the API server was not yet asked whether it knows signing key " + idOf("rsa2048")) // although it was published before
		changes := f.changes.Load()
		advance(time.Second)
		if err := f.Ready(); err == nil || !strings.Contains(err.Error(), idOf("rsa2048")) {
			t.Errorf("ready before an answer: %v", err)
		}
		advance(time.Hour)
		f.set(func() { f.keys, f.err = testkit.Keys("p256"), nil })
		f.Reset()
		synctest.Wait() // without the delay of the former key
		f.expectWritten()
		if got := f.changes.Load() - changes; got != 1 {
			t.Errorf("what had to wait was queued %d times, want once: the same keys are published", got)
		}
	})
}

func TestATokenOfAKeyThatWasNotCheckedIsNotWritten(t *testing.T) {
	run(t, func(f *fixture, _ *Config) { f.signs = testkit.Keys("p384") }, func(f *fixture) {
		_, err := f.sign()
		if err == nil || errors.Is(err, workqueue.ErrRequeueLater) || !strings.Contains(err.Error(), idOf("p384")) {
			t.Errorf("sign: %v", err)
		}
	})
}

func TestASignerThatFailsIsLeftAloneForASecond(t *testing.T) {
	run(t, func(f *fixture, _ *Config) { f.signErr = errBoom }, func(f *fixture) {
		if _, err := f.sign(); !errors.Is(err, errBoom) || errors.Is(err, workqueue.ErrRequeueLater) {
			t.Errorf("first: %v", err)
		}
		advance(300 * time.Millisecond)
		requeueAfter, err := f.sign()
		if requeueAfter != 700*time.Millisecond || !errors.Is(err, workqueue.ErrRequeueLater) || f.signings != 1 {
			t.Errorf("after 300 ms: again after %v, %v, %d tries", requeueAfter, err, f.signings)
		}
		if err := f.Ready(); err == nil || err.Error() != "no tokens are written: boom" {
			t.Errorf("ready: %v", err)
		}
		f.set(func() { f.signErr = nil })
		advance(700 * time.Millisecond)
		f.expectWritten()
	})
}

func TestAnErrorOfTheSignerIsOutdatedAfterTenMinutes(t *testing.T) {
	run(t, func(f *fixture, _ *Config) { f.signErr = errBoom }, func(f *fixture) {
		_, _ = f.sign() // its Secret is deleted
		advance(signerErrorAge - time.Millisecond)
		if f.Ready() == nil {
			t.Error("ready too early")
		}
		advance(time.Millisecond)
		if err := f.Ready(); err != nil {
			t.Errorf("not ready: %v", err)
		}
	})
}

func TestPublishedKeysAreKnown(t *testing.T) {
	run(t, asUsual, func(f *fixture) {
		own := f.currentKeys()
		set, complete := f.Known()
		if want := testkit.Keys("p256", "rsa2048").ID(); !complete || set.ID() != want || set.Signing().PublicKey().ID() != own.Signing().PublicKey().ID() {
			t.Errorf("known: %v, %t", set.Verification(), complete)
		}
		if again, _ := f.Known(); again != set {
			t.Error("the set is made anew for each call")
		}
		changes := f.changes.Load()
		f.set(func() { f.body = publishes(t, testkit.Keys("p256", "p384")) })
		f.Refresh() // it was just read
		synctest.Wait()
		if n := f.set(func() {}); n != 1 {
			t.Errorf("%d requests", n)
		}
		advance(minRefreshInterval)
		f.Refresh()
		synctest.Wait()
		if set, _ := f.Known(); set.ID() != testkit.Keys("p256", "p384").ID() || f.changes.Load() != changes+1 {
			t.Errorf("known after a change: %v, %d changes", set.Verification(), f.changes.Load()-changes)
		}
		f.set(func() { f.code = 500 }) // what was published is not forgotten
		advance(interval)
		if set, complete := f.Known(); !complete || set.ID() != testkit.Keys("p256", "p384").ID() {
			t.Errorf("known without an answer: %v, %t", set.Verification(), complete)
		}
		f.set(func() { f.code = 404 })
		advance(maxDelay)
		if set, complete := f.Known(); !complete || set.ID() != own.ID() {
			t.Errorf("known where nothing is served: %v, %t", set.Verification(), complete)
		}
	})
}

func TestNewNamesWhatIsMissing(t *testing.T) {
	if _, err := New(Config{}); err == nil || !strings.Contains(err.Error(), "Client, Keys and Signer") {
		t.Errorf("nothing: %v", err)
	}
	f := &fixture{keys: testkit.Keys("p256")}
	if _, err := New(Config{Client: &rest.RESTClient{}, Keys: f.currentKeys, Signer: f}); err == nil || !strings.Contains(err.Error(), "Recorder, Process and Clock") {
		t.Errorf("no recorder: %v", err)
	}
}
