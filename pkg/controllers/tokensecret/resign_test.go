package tokensecret

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	clienttesting "k8s.io/client-go/testing"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/internal/workqueue"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/testkit/fakeapi"
)

func TestADeadTokenIsReplacedThoughTheCACannotBeWritten(t *testing.T) {
	f := newFixture(t, robot(), secret(withToken(signed(unknownKey)), testkit.WithData("ca.crt", "another")))
	f.server.Inject(func(action clienttesting.Action) *fakeapi.Fault {
		if data := dataOf(action); data["ca.crt"] != nil && data["token"] == nil {
			return &fakeapi.Fault{Err: testkit.Invalid("data", "too large")}
		}
		return nil
	})
	for range 50 { // about 15 minutes
		requeueAfter, err := f.syncS(t)
		if err != nil && !errors.Is(err, workqueue.ErrRequeueLater) {
			requeueAfter = 5 * time.Millisecond // the repair failed
		}
		f.advance(requeueAfter)
	}
	resigned := slices.ContainsFunc(testkit.Events(f.recorder), func(event string) bool { return strings.Contains(event, api.ReasonResignedToken) })
	if !resigned || len(f.reviewer.reviewed) != 3 {
		t.Errorf("signed anew: %t, after %d reviews", resigned, len(f.reviewer.reviewed))
	}
}

// dataOf returns the data in a patch, nil if there is none.
func dataOf(action clienttesting.Action) map[string]any {
	body, _ := testkit.Requests([]clienttesting.Action{action})[0].Body.(map[string]any)
	data, _ := body["data"].(map[string]any)
	return data
}

func TestAResignedSecretGetsAllThatIsWrong(t *testing.T) {
	f := newFixture(t, robot(), secret(withToken(signed(olderKey)), testkit.WithData("namespace", "")))
	f.cfg.Resign = ResignAll
	f.syncOnce(t, "s")
	want := secret().Data
	if diff := cmp.Diff(want, fakeapi.Get[corev1.Secret](f.server, "team/s").Data); diff != "" {
		t.Errorf("data (-want +got):\n%s", diff)
	}
}

func TestWhatIsLeftAloneHasOneEvent(t *testing.T) {
	cases := map[string]struct {
		inToken string
		inOpt   testkit.Option
		inUser  string
		want    string
	}{
		"accepted": {inToken: "opaque", inOpt: named("s"), inUser: accountUser, want: "Normal KeptToken The token in this secret stays: "},
		"of another, kept by annotation": {
			inToken: signed(signingKey, ofSecret("other")), inOpt: neverResign(),
			want: "Warning KeptToken The token in this secret was made for another secret or service account. It stays, because the secret or its namespace has the annotation sakeeper.io/resign=never",
		},
		"made up, invalidated by the cleaner": {inToken: "invalid", inOpt: invalidated(), want: "Warning KeptToken No known key verifies the token"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			f := newCheckFixture(t, tc.inToken, tc.inOpt)
			f.reviewer.user = tc.inUser
			for range 10 {
				f.check(t)
				f.advance(time.Hour)
			}
			events := testkit.Events(f.recorder)
			if len(events) != 1 || !strings.HasPrefix(events[0], tc.want) || slices.Contains(f.writes(), resigned) {
				t.Errorf("events %q, writes %v", events, f.writes())
			}
		})
	}
}

func TestASecretsAnnotationBeatsThatOfItsNamespace(t *testing.T) {
	resign := func(value string) testkit.Option { return testkit.WithAnnotation(api.ResignAnnotation, value) }
	neutral := testkit.WithAnnotation("note", "mine")
	cases := map[string]struct {
		inSecret, inNamespace testkit.Option
		want                  int
	}{
		"no annotation":                  {inSecret: neutral, inNamespace: neutral, want: 1},
		"never on the namespace":         {inSecret: neutral, inNamespace: neverResign()},
		"another value on the secret":    {inSecret: resign(""), inNamespace: neverResign(), want: 1},
		"never on the secret":            {inSecret: neverResign(), inNamespace: neutral},
		"an unknown value on the secret": {inSecret: resign("sometimes"), inNamespace: neutral, want: 1},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			f := newCheckFixture(t, signed(unknownKey), tc.inSecret)
			f.cache(t, testkit.Namespace("team", tc.inNamespace))
			f.check(t)
			f.expect(t, tc.want)
		})
	}
}

func TestTokensThatStayAreCountedByNewKeysToo(t *testing.T) {
	for name, opt := range map[string]testkit.Option{"kept by annotation": neverResign(), "invalidated by the cleaner": invalidated()} {
		t.Run(name, func(t *testing.T) {
			f := newCheckFixture(t, signed(unknownKey), opt)
			f.check(t)
			expectRequests(t, f.requests()) // before the keys change
			f.tokens.set = testkit.Keys(signingKey, olderKey, "p521")
			f.check(t)
			f.check(t)
			expectRequests(t, f.requests(), "get secrets team/s") // one is enough
			f.tokens.set = testkit.Keys(signingKey, unknownKey)
			f.check(t)
			if got := f.verifiedBy(f.cached(), f.known()); got != testkit.Keys(unknownKey).Signing().PublicKey().ID() {
				t.Errorf("verified by %q", got)
			}
			f.expect(t, 0)
		})
	}
}

// The Secret is cached while a key is missing, and the keys are then those of the start again.
func TestAKeyThatComesBackIsTriedAgain(t *testing.T) {
	compact := signed(olderKey)
	f := newCheckFixture(t, compact, neverResign())
	both := f.known()
	f.tokens.set = testkit.Keys(signingKey)
	f.cache(t, secret(withToken(compact), neverResign())) // it changed while the key was missing
	f.check(t)
	f.tokens.set = both
	f.check(t)
	if got := f.verifiedBy(f.cached(), both); got != testkit.Keys(olderKey).Signing().PublicKey().ID() {
		t.Errorf("verified by %q", got)
	}
}
