package tokenrequest

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/internal/workqueue"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

func TestFailures(t *testing.T) {
	const (
		requesting = "request a token for service account team/robot: "
		writing    = "write secret team/s: "
		redacted   = "Invalid (the message is redacted, because it contains a token)"
	)
	cases := map[string]struct {
		inTokensErr, inWritesErr error
		inToken                  string
		want                     string        // the end of the event; empty: this is no failure
		wantAgain                time.Duration // zero: by the delays of the queue
		wantAtOnce               bool          // otherwise there is an event only after [warnAfter]
	}{
		"forbidden":                    {inTokensErr: testkit.QuotaExceeded(), want: requesting + testkit.QuotaExceeded().Error(), wantAtOnce: true},
		"a deleted account":            {inTokensErr: testkit.NotFound(), want: requesting + testkit.NotFound().Error(), wantAgain: requeueAfter},
		"an outage":                    {inTokensErr: errBoom, want: requesting + "boom"},
		"a terminating namespace":      {inTokensErr: testkit.NamespaceTerminating(), wantAgain: requeueAfter},
		"a response without a token":   {inToken: "opaque-" + secretBytes, want: requesting + "read the response of the API server: it is not a token with claims"},
		"an error that quotes a token": {inTokensErr: testkit.Invalid("spec", secretBytes), want: requesting + redacted, wantAtOnce: true},
		"a conflict":                   {inWritesErr: testkit.Conflict(), want: writing + testkit.Conflict().Error(), wantAgain: requeueAfter},
		"a deleted secret":             {inWritesErr: testkit.NotFound(), want: writing + testkit.NotFound().Error(), wantAgain: requeueAfter},
		"a rejected write":             {inWritesErr: testkit.Invalid("data", secretBytes), want: writing + redacted, wantAtOnce: true},
		"a lost write":                 {inWritesErr: testkit.InternalError(), want: writing + testkit.InternalError().Error()},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, served(), robot(), managed())
			f.api.configure(func(a *fakeAPIServer) { a.tokensErr, a.writesErr, a.token = tc.inTokensErr, tc.inWritesErr, tc.inToken })
			fails := tc.want != ""
			event := "Warning FailedTokenRenewal This Secret cannot be given a token: " + tc.want
			again, err := f.syncSecret(t)
			if again != tc.wantAgain || (err != nil) != fails || errors.Is(err, workqueue.ErrRequeueLater) != (fails && again > 0) {
				t.Errorf("again in %v, error %v", again, err)
			}
			if strings.Contains(fmt.Sprint(err), secretBytes) {
				t.Error("the error holds a token")
			}
			if f.notes.get(testkit.SecretUID).failingSince.IsZero() == fails {
				t.Errorf("failing: %t", !fails)
			}
			if tc.wantAtOnce {
				f.expectEvents(t, event)
			} else if f.expectEvents(t); fails {
				f.pass(warnAfter)
				f.mustFail(t)
				f.expectEvents(t, event)
			}
			f.api.configure(func(a *fakeAPIServer) { a.tokensErr, a.writesErr, a.token = nil, nil, "" })
			f.pass(maxOutageDelay)
			f.mustSync(t)
			if len(f.api.secret().Data["token"]) == 0 || !f.notes.get(testkit.SecretUID).failingSince.IsZero() {
				t.Error("no token after the failure, or still failing")
			}
		})
	}
}

func TestMaxRetryDelay(t *testing.T) {
	cases := map[string]struct {
		inRemaining time.Duration
		inPermanent bool
		want        time.Duration
	}{
		"an outage":                         {want: 30 * time.Second},
		"an outage, five minutes remaining": {inRemaining: 5 * time.Minute, want: 30 * time.Second},
		"an outage, an hour remaining":      {inRemaining: time.Hour, want: 30 * time.Second},
		"rejected, no token":                {inPermanent: true},
		"rejected, expired":                 {inPermanent: true, inRemaining: -time.Hour},
		"rejected, an hour remaining":       {inPermanent: true, inRemaining: time.Hour, want: 6 * time.Minute},
		"rejected, a minute remaining":      {inPermanent: true, inRemaining: time.Minute, want: 30 * time.Second},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := maxRetryDelay(tc.inRemaining, tc.inPermanent); got != tc.want {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

func (f fixture) expectOneLeftAlone(t *testing.T) {
	t.Helper()
	if events := testkit.Events(f.recorder); len(events) != 1 || !strings.Contains(events[0], "LeftAlone") {
		t.Errorf("events %q", events)
	}
}

func TestATokenThatIsRemovedAgainAndAgainIsWrittenEverMoreSlowly(t *testing.T) {
	f := newFixture(t, served(), robot(), managed())
	requests := 0
	testkit.ExpectWriteBackoff(t, f.clock, func() int { return requests }, func() time.Duration {
		again := f.mustSync(t)
		removeToken(t, f)
		requests += len(f.summary())
		return again
	})
	if requests%2 != 0 { // a token and a patch for each write
		t.Errorf("%d requests", requests)
	}
	f.expectOneLeftAlone(t)
	// A rotation is other content.
	f.api.updateSecret(func(s *corev1.Secret) { s.Annotations[api.RotateAnnotation] = "now" })
	f.expectSync(t, oneToken()...)
}

func removeToken(t *testing.T, f fixture) {
	t.Helper()
	f.api.updateSecret(func(s *corev1.Secret) { delete(s.Data, "token") })
}

// A client takes the token out of the Secret ten times in ten minutes, and then each time that it
// was written.
func TestATokenThatIsRemovedIsNeverMissingForLong(t *testing.T) {
	f := newFixture(t, served(), robot(), managed())
	// missing syncs the Secret until its token is back, and returns how long that takes.
	missing := func() (missing time.Duration) {
		for {
			again := f.mustSync(t)
			if len(f.summary()) > 0 {
				return missing
			}
			if again <= 0 {
				t.Fatal("the Secret is not synced again")
			}
			missing += again
			f.pass(again)
		}
	}
	missing()
	for i := range 10 {
		f.pass(time.Minute)
		removeToken(t, f)
		if got := missing(); got > 5*time.Second {
			t.Errorf("removed %d times, it is missing for %v", i+1, got)
		}
	}
	for range 30 {
		removeToken(t, f)
		if got := missing(); got > 5*time.Minute {
			t.Errorf("it is missing for %v", got)
		}
	}
	f.expectOneLeftAlone(t)
}

// TestConflictsWithoutEndCostFewTokens has a webhook that always responds with a conflict,
// without an event, or another client that always writes first.
func TestConflictsWithoutEndCostFewTokens(t *testing.T) {
	for name, changes := range map[string]bool{"nothing changes": false, "it changes each time": true} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, served(), robot(), managed())
			f.api.configure(func(a *fakeAPIServer) { a.writesErr = testkit.Conflict() })
			const minutes = 10
			for i := range minutes * 60 {
				if changes {
					f.api.updateSecret(func(s *corev1.Secret) { s.Data["mine"] = fmt.Append(nil, i) })
					f.cache(t, f.api.secret())
				}
				_, _ = f.syncSecret(t)
				f.pass(time.Second)
			}
			if got := len(f.summary()) / 2; got < minutes || got > 2*minutes+6 {
				t.Errorf("%d tokens in %d minutes", got, minutes)
			}
			want := []string{`Warning FailedTokenRenewal This Secret cannot be given a token: write secret team/s: ` + testkit.Conflict().Error()}
			if diff := cmp.Diff(want, testkit.Events(f.recorder)[:1]); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
			f.api.configure(func(a *fakeAPIServer) { a.writesErr = nil })
			f.requests()
			f.pass(maxOutageDelay)
			f.expectSync(t, oneToken()...)
		})
	}
}
