package signingkey

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/internal/workqueue"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

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
