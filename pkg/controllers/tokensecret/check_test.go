package tokensecret

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/internal/tokenreview"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/token"
)

func TestOnlyTokensThatMayBeDeadAreReviewed(t *testing.T) {
	otherSecret := func(c *token.LegacyClaims) { c.SecretName = "another" }
	cases := map[string]struct {
		inToken string
		inOpts  []testkit.Option
		want    tokenStatus
	}{
		"signed by the key that signs":  {inToken: signedBy(t, "p256"), want: current},
		"signed by a key that verifies": {inToken: signedBy(t, "rsa2048"), want: older},
		"signed by an unknown key":      {inToken: signedBy(t, "p384"), want: maybeDead},
		"made for another Secret":       {inToken: signedBy(t, "p384", otherSecret), want: maybeDead},
		"no JWT":                        {inToken: "hunter2", want: maybeDead},
		"truncated":                     {inToken: truncated(signedBy(t, "p256")), want: maybeDead},
		"with a line break":             {inToken: signedBy(t, "p256") + "\n", want: maybeDead},
		"a megabyte of garbage":         {inToken: strings.Repeat("garbage.", 1<<17), want: maybeDead},
		"unknown key, kept by annotation": {
			inToken: signedBy(t, "p384"), inOpts: []testkit.Option{testkit.WithAnnotation(api.ResignAnnotation, "never")}, want: maybeDead,
		},
		"unknown key, invalidated by the cleaner": {
			inToken: signedBy(t, "p384"), inOpts: []testkit.Option{testkit.WithLabel(token.InvalidSinceLabel, "2026-01-02")}, want: maybeDead,
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			f := newCheckFixture(t, tc.inToken, tc.inOpts...)
			f.reviewer.answer = tokenreview.Result{Reason: "no"}
			cached, _ := cache.Get(f.cfg.Secrets, "team/s")
			if got := f.statusOf(cached); got != tc.want {
				t.Errorf("status %d, want %d", got, tc.want)
			}
			f.syncS(t)
			want := 0
			if tc.want == maybeDead && len(tc.inOpts) == 0 {
				want = 1
			}
			if len(f.reviewer.reviewed) != want {
				t.Errorf("%d reviews, want %d", len(f.reviewer.reviewed), want)
			}
			if got := f.writes(); len(got) > 0 {
				t.Errorf("wrote %v", got)
			}
		})
	}
}

func TestATokenIsDeadAfterThreeRefusalsOverTenMinutes(t *testing.T) {
	f := newCheckFixture(t, signedBy(t, "p384"))
	f.reviewer.answer = tokenreview.Result{Reason: "unknown key"}
	began := f.clock.Now()
	for len(f.writes()) == 0 && f.clock.Now().Sub(began) < time.Hour {
		if requeueAfter := f.syncS(t); requeueAfter > 5*time.Minute {
			t.Fatalf("requeued after %v", requeueAfter)
		}
		f.advance(time.Minute)
	}
	if took := f.clock.Now().Sub(began); took != 11*time.Minute { // the last step passed one more
		t.Errorf("it took %v", took)
	}
	if len(f.reviewer.reviewed) != 3 {
		t.Errorf("%d reviews", len(f.reviewer.reviewed))
	}
	if diff := cmp.Diff([]string{"patch secrets team/s"}, f.writes()); diff != "" {
		t.Errorf("writes (-want +got):\n%s", diff)
	}
	want := []string{"Normal ResignedToken The token was signed anew, with key , because no known key verifies its token, or it names a former service account. " +
		"Copies of the old one are refused from now on involvedObject{kind=Secret,apiVersion=v1}"}
	if diff := cmp.Diff(want, testkit.Events(f.recorder)); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestATokenThatTheAPIServerAcceptsIsKeptAndReviewedOnce(t *testing.T) {
	f := newCheckFixture(t, signedBy(t, "p384"))
	f.reviewer.answer = tokenreview.Result{Username: "system:serviceaccount:team:robot"}
	for range 100 {
		f.syncS(t)
		f.advance(time.Hour)
	}
	if len(f.reviewer.reviewed) != 1 || len(f.writes()) != 0 {
		t.Errorf("%d reviews, writes %v", len(f.reviewer.reviewed), f.writes())
	}
	// With other keys it is reviewed again.
	f.setKeys(testkit.Keys("p521", "rsa2048"))
	f.syncS(t)
	f.advance(firstReviewDelay)
	f.syncS(t)
	if len(f.reviewer.reviewed) != 2 {
		t.Errorf("%d reviews after the keys changed", len(f.reviewer.reviewed))
	}
}

func TestTokenStatus(t *testing.T) {
	cases := map[string]struct {
		in   tokenInfo
		want tokenStatus
	}{
		"none":                              {in: tokenInfo{none: true}, want: current},
		"not made for this Secret":          {in: tokenInfo{}, want: maybeDead},
		"that, refused three times":         {in: tokenInfo{check: tokenCheck{refusals: 3}}, want: dead},
		"that, but accepted":                {in: tokenInfo{check: tokenCheck{accepted: true}}, want: accepted},
		"made for another, of no known key": {in: tokenInfo{other: true}, want: maybeDead},
		"made for another, of a known key":  {in: tokenInfo{other: true, verifiedBy: "former"}, want: misplaced},
		"a bound one of another account":    {in: tokenInfo{check: tokenCheck{otherAccount: true}}, want: misplaced},
		"of a former account, refused once": {in: tokenInfo{own: true, verifiedBy: "signs", staleUID: true, check: tokenCheck{refusals: 1}}, want: maybeDead},
		"of a former account, and twice":    {in: tokenInfo{own: true, verifiedBy: "signs", staleUID: true, check: tokenCheck{refusals: 2}}, want: dead},
		"of the key that signs":             {in: tokenInfo{own: true, verifiedBy: "signs"}, want: current},
		"of a key that verifies":            {in: tokenInfo{own: true, verifiedBy: "former"}, want: older},
		"of no known key":                   {in: tokenInfo{own: true}, want: maybeDead},
		"of a former account":               {in: tokenInfo{own: true, verifiedBy: "signs", staleUID: true}, want: maybeDead},
		"refused twice":                     {in: tokenInfo{own: true, check: tokenCheck{refusals: 2}}, want: maybeDead},
		"refused three times":               {in: tokenInfo{own: true, check: tokenCheck{refusals: 3}}, want: dead},
		"of a former account, and refused":  {in: tokenInfo{own: true, verifiedBy: "former", staleUID: true, check: tokenCheck{refusals: 3}}, want: dead},
		"of no known key, but accepted":     {in: tokenInfo{own: true, check: tokenCheck{refusals: 2, accepted: true}}, want: accepted},
		"of a former account, but accepted": {in: tokenInfo{own: true, verifiedBy: "signs", staleUID: true, check: tokenCheck{accepted: true}}, want: accepted},
		"verified, though refused":          {in: tokenInfo{own: true, verifiedBy: "signs", check: tokenCheck{refusals: 3}}, want: current},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := tc.in.status("signs"); got != tc.want {
				t.Errorf("got %d, want %d", got, tc.want)
			}
		})
	}
}

func TestTokensThatStayAreCountedByNewKeysToo(t *testing.T) {
	for name, opt := range map[string]testkit.Option{
		"kept by annotation":         testkit.WithAnnotation(api.ResignAnnotation, "never"),
		"invalidated by the cleaner": testkit.WithLabel(token.InvalidSinceLabel, "2026-01-02"),
	} {
		t.Run(name, func(t *testing.T) {
			f := newCheckFixture(t, signedBy(t, "p384"), opt)
			f.syncS(t)
			if got := testkit.Requests(f.client.Actions()); len(got) > 0 {
				t.Errorf("requests %v before the keys changed", got)
			}
			f.setKeys(testkit.Keys("p256", "rsa2048", "p521"))
			for range 3 {
				f.syncS(t)
			}
			if got := testkit.Requests(f.client.Actions()); len(got) != 1 {
				t.Errorf("requests %v: one GET of each token is enough", got)
			}
			f.setKeys(testkit.Keys("p256", "p384"))
			f.syncS(t)
			cached, _ := cache.Get(f.cfg.Secrets, "team/s")
			if got := f.verifiedBy(cached, f.known()); got != testkit.Keys("p384").Signing().PublicKey().ID() {
				t.Errorf("verified by %q", got)
			}
			if len(f.reviewer.reviewed) > 0 || len(f.writes()) > 0 || len(f.notes()) > 0 {
				t.Errorf("%d reviews, writes %v, notes %v", len(f.reviewer.reviewed), f.writes(), f.notes())
			}
		})
	}
}

func TestOneAcceptanceEndsACheck(t *testing.T) {
	f := newCheckFixture(t, signedBy(t, "p384"))
	f.reviewer.answer = tokenreview.Result{Reason: "unknown key"}
	f.syncS(t)
	f.advance(5 * time.Minute)
	f.syncS(t)
	f.advance(5 * time.Minute)
	f.reviewer.answer = tokenreview.Result{Username: "system:serviceaccount:team:robot"}
	f.syncS(t)
	f.reviewer.answer = tokenreview.Result{Reason: "unknown key"}
	for range 10 {
		f.advance(5 * time.Minute)
		f.syncS(t)
	}
	if len(f.reviewer.reviewed) != 3 || len(f.writes()) != 0 {
		t.Errorf("%d reviews, writes %v", len(f.reviewer.reviewed), f.writes())
	}
}

func TestAFailedReviewIsNoRefusal(t *testing.T) {
	f := newCheckFixture(t, signedBy(t, "p384"))
	f.reviewer.err = errBoom
	for range 5 {
		if _, err := f.sync(f.context(t), objectName("team/s")); err == nil || err.Error() != "check the token of secret team/s: boom" {
			t.Errorf("error %v", err)
		}
		f.advance(10 * time.Minute)
	}
	if got := f.writes(); len(got) > 0 {
		t.Errorf("wrote %v", got)
	}
}

func TestAKeyThatCameAfterTheTokenWasCachedVerifiesIt(t *testing.T) {
	f := newCheckFixture(t, signedBy(t, "p384"))
	f.setKeys(testkit.Keys("p256", "p384"))
	f.syncS(t)
	f.syncS(t)
	if len(f.reviewer.reviewed) != 0 || len(f.writes()) != 0 {
		t.Errorf("%d reviews, writes %v", len(f.reviewer.reviewed), f.writes())
	}
	cached, _ := cache.Get(f.cfg.Secrets, "team/s")
	if got := f.statusOf(cached); got != older {
		t.Errorf("status %d, want %d", got, older)
	}
}

// keysOfTheServer is a controller with the key p256, that knows the keys of others once the API
// server has said that it publishes them, and the Secret team/s with a token of p384.
func keysOfTheServer(t *testing.T, change ...func(*token.LegacyClaims)) fixture {
	t.Helper()
	f := newCheckFixture(t, signedBy(t, "p384", change...))
	f.cfg.Tokens = tokens{set: testkit.Keys("p256", "rsa2048"), incomplete: true, refreshed: new(int)}
	f.reviewer.answer = tokenreview.Result{Reason: "unknown key"}
	return f
}

func TestNoTokenIsReviewedBeforeThePublishedKeysAreKnown(t *testing.T) {
	f := keysOfTheServer(t)
	for range 20 {
		f.syncS(t)
		f.advance(time.Minute)
	}
	if len(f.reviewer.reviewed) > 0 || len(f.writes()) > 0 {
		t.Errorf("%d reviews, writes %v", len(f.reviewer.reviewed), f.writes())
	}
}

func TestAPublishedKeyVerifiesATokenWithoutAReview(t *testing.T) {
	f := keysOfTheServer(t)
	f.setKeys(testkit.Keys("p256", "rsa2048", "p384"))
	for range 20 {
		f.syncS(t)
		f.advance(time.Minute)
	}
	if len(f.reviewer.reviewed) > 0 || len(f.writes()) > 0 || len(f.notes()) > 0 {
		t.Errorf("%d reviews, writes %v, notes %v", len(f.reviewer.reviewed), f.writes(), f.notes())
	}
	// Its key is not published any more: now the token is dead.
	f.setKeys(testkit.Keys("p256", "rsa2048"))
	for i := 0; i < 15 && len(f.writes()) == 0; i++ {
		f.syncS(t)
		f.advance(time.Minute)
	}
	if diff := cmp.Diff([]string{"patch secrets team/s"}, f.writes()); diff != "" || len(f.reviewer.reviewed) != 3 {
		t.Errorf("%d reviews, writes (-want +got):\n%s", len(f.reviewer.reviewed), diff)
	}
}

func TestATokenOfAnotherByAPublishedKeyIsReplacedAtOnceWithoutAReview(t *testing.T) {
	f := keysOfTheServer(t, func(c *token.LegacyClaims) { c.ServiceAccountName = "other" })
	f.setKeys(testkit.Keys("p256", "rsa2048", "p384"))
	f.syncS(t)
	if len(f.reviewer.reviewed) > 0 || len(f.writes()) == 0 || f.writes()[0] != "patch secrets team/s" {
		t.Errorf("%d reviews, writes %v", len(f.reviewer.reviewed), f.writes())
	}
}

func TestATokenOfAFormerAccountByAPublishedKeyTakesTwoRefusals(t *testing.T) {
	f := keysOfTheServer(t, func(c *token.LegacyClaims) { c.ServiceAccountUID = string(testkit.OtherUID) })
	f.setKeys(testkit.Keys("p256", "rsa2048", "p384"))
	f.syncS(t)
	f.advance(formerReviewInterval)
	f.syncS(t)
	if diff := cmp.Diff([]string{"patch secrets team/s"}, f.writes()[:1]); diff != "" || len(f.reviewer.reviewed) != 2 {
		t.Errorf("%d reviews, writes (-want +got):\n%s", len(f.reviewer.reviewed), diff)
	}
}

func TestThePublishedKeysAreReadAgainForAnUnknownKey(t *testing.T) {
	f := newCheckFixture(t, signedBy(t, "p384"))
	if n := *f.cfg.Tokens.(tokens).refreshed; n == 0 {
		t.Error("they were not")
	}
	f = newCheckFixture(t, signedBy(t, "p256"))
	if n := *f.cfg.Tokens.(tokens).refreshed; n != 0 {
		t.Errorf("for a key that is known they were, %d times", n)
	}
}

func TestACheckIsOfOneToken(t *testing.T) {
	f := newCheckFixture(t, signedBy(t, "p384"))
	f.reviewer.answer = tokenreview.Result{Reason: "unknown key"}
	f.syncS(t)
	f.advance(5 * time.Minute)
	f.syncS(t)
	// Another client writes another token, which the cache does not have yet.
	other := secret(testkit.WithData("token", signedBy(t, "p521")))
	f.client.PrependReactor("get", "secrets", func(clienttesting.Action) (bool, runtime.Object, error) { return true, other, nil })
	f.advance(5 * time.Minute)
	f.syncS(t)
	if len(f.reviewer.reviewed) != 2 {
		t.Errorf("%d reviews", len(f.reviewer.reviewed))
	}
	f.cache(t, other)
	f.syncS(t)
	f.advance(firstReviewDelay)
	f.syncS(t)
	if len(f.reviewer.reviewed) != 3 || len(f.writes()) != 0 {
		t.Errorf("%d reviews, writes %v", len(f.reviewer.reviewed), f.writes())
	}
	if err := f.cfg.Secrets.GetStore().Delete(cache.NewTokenSecret(other.DeepCopy(), nil)); err != nil {
		t.Fatal(err)
	}
	f.syncS(t)
	if len(f.checks.bySecret) > 0 {
		t.Errorf("remembered checks of deleted Secrets: %v", f.checks.bySecret)
	}
}

func TestOldRefusalsDoNotCount(t *testing.T) {
	f := newCheckFixture(t, signedBy(t, "p384"))
	f.reviewer.answer = tokenreview.Result{Reason: "unknown key"}
	f.syncS(t)
	f.advance(5 * time.Minute)
	f.syncS(t)
	f.advance(refusalLifetime + time.Minute)
	for range 9 { // 9 minutes, of the more than 10 that three take
		f.syncS(t)
		f.advance(time.Minute)
	}
	if got := f.writes(); len(got) > 0 {
		t.Errorf("wrote %v", got)
	}
}

// The Secret is cached while a key is missing, and the keys are then those of the start again.
func TestAKeyThatComesBackIsTriedAgain(t *testing.T) {
	compact, opt := signedBy(t, "rsa2048"), testkit.WithAnnotation(api.ResignAnnotation, "never")
	f := newCheckFixture(t, compact, opt)
	both, one := f.known(), testkit.Keys("p256")
	f.setKeys(one)
	f.cache(t, secret(testkit.WithData("token", compact), opt)) // it changed while the key was missing
	f.syncS(t)
	f.setKeys(both)
	f.syncS(t)
	found, _ := cache.Get(f.cfg.Secrets, "team/s")
	if got := f.verifiedBy(found, both); got != testkit.Keys("rsa2048").Signing().PublicKey().ID() {
		t.Errorf("verified by %q", got)
	}
}

func TestEqualSetsOfKeysShareACheck(t *testing.T) {
	f := newCheckFixture(t, signedBy(t, "p384"))
	f.reviewer.answer = tokenreview.Result{Username: "system:serviceaccount:team:robot"}
	for range 2 {
		f.setKeys(testkit.Keys("p256", "rsa2048")) // a set of its own each time
		f.syncS(t)
	}
	if len(f.reviewer.reviewed) != 1 {
		t.Errorf("%d reviews", len(f.reviewer.reviewed))
	}
}

// truncated is a token that lacks its last part.
func truncated(compact string) string { return compact[:strings.LastIndex(compact, ".")] }

func TestMadeUpTokensAreReplacedAfterThreeRefusals(t *testing.T) {
	for name, compact := range map[string]string{
		"made up": "invalid", "truncated": truncated(signedBy(t, "p256")), "with a line break": signedBy(t, "p256") + "\n", "a line break": "\n", "no text": "\xff\xfe",
		"of another Secret, by an unknown key": signedBy(t, "p384", func(c *token.LegacyClaims) { c.SecretName = "other" }),
	} {
		t.Run(name, func(t *testing.T) {
			f := newCheckFixture(t, compact)
			f.reviewer.answer = tokenreview.Result{Reason: "unknown"}
			began := f.clock.Now()
			for len(f.writes()) == 0 && f.clock.Now().Sub(began) < time.Hour {
				f.syncS(t)
				f.advance(time.Minute)
			}
			if took := f.clock.Now().Sub(began); took != 11*time.Minute { // the last step passed one more
				t.Errorf("it took %v", took)
			}
			for _, sent := range f.reviewer.reviewed {
				if sent != strings.TrimSpace(sent) {
					t.Errorf("sent %q, which no client does", sent)
				}
			}
		})
	}
}

func TestATokenOfAFormerAccountIsReplacedAfterTwoRefusals(t *testing.T) {
	f := newFixture(t, apiServer{}, testkit.ServiceAccount("team/robot"))
	stored := secret(testkit.WithData("token", signedBy(t, "p256", func(c *token.LegacyClaims) { c.ServiceAccountUID = string(testkit.OtherUID) })))
	f.cache(t, stored)
	f.client.PrependReactor("get", "secrets", func(clienttesting.Action) (bool, runtime.Object, error) { return true, stored.DeepCopy(), nil })
	f.takeNotes(t, stored)
	f.reviewer.answer = tokenreview.Result{Reason: "another UID"}
	f.syncS(t)
	f.advance(formerReviewInterval - time.Second)
	f.syncS(t)
	if len(f.writes()) > 0 || len(f.reviewer.reviewed) != 1 {
		t.Fatalf("%d reviews, writes %v", len(f.reviewer.reviewed), f.writes())
	}
	f.advance(time.Second)
	f.syncS(t)
	if diff := cmp.Diff([]string{"patch secrets team/s"}, f.writes()[:1]); diff != "" || len(f.reviewer.reviewed) != 2 {
		t.Errorf("%d reviews, writes (-want +got):\n%s", len(f.reviewer.reviewed), diff)
	}
}

// The API server's cache may accept a token for 10 seconds after its account was replaced.
func TestAnEarlyAcceptanceOfAFormerAccountIsNotBelieved(t *testing.T) {
	f := newFixture(t, apiServer{}, testkit.ServiceAccount("team/robot"))
	stored := secret(testkit.WithData("token", signedBy(t, "p256", func(c *token.LegacyClaims) { c.ServiceAccountUID = string(testkit.OtherUID) })))
	f.cache(t, stored)
	f.client.PrependReactor("get", "secrets", func(clienttesting.Action) (bool, runtime.Object, error) { return true, stored.DeepCopy(), nil })
	f.reviewer.answer = tokenreview.Result{Username: "system:serviceaccount:team:robot"}
	if requeueAfter, err := f.sync(f.context(t), objectName("team/s")); err != nil || requeueAfter != firstReviewDelay {
		t.Errorf("requeued after %v, %v", requeueAfter, err)
	}
	cached, _ := cache.Get(f.cfg.Secrets, "team/s")
	if got := f.statusOf(cached); got != maybeDead {
		t.Errorf("status %d", got)
	}
	f.advance(firstReviewDelay)
	f.syncS(t)
	if got := f.statusOf(cached); got != accepted {
		t.Errorf("status %d after another acceptance", got)
	}
}

func TestATokenOfAnotherIsReplacedAtOnceWithoutAReview(t *testing.T) {
	for name, change := range map[string]func(*token.LegacyClaims){
		"another Secret":    func(c *token.LegacyClaims) { c.SecretName = "other" },
		"another account":   func(c *token.LegacyClaims) { c.ServiceAccountName = "other" },
		"another namespace": func(c *token.LegacyClaims) { c.Namespace = "other" },
	} {
		for _, key := range []string{"p256", "rsa2048"} {
			t.Run(name+" by "+key, func(t *testing.T) {
				f := newFixture(t, apiServer{}, testkit.ServiceAccount("team/robot"), secret(testkit.WithData("token", signedBy(t, key, change))))
				f.mustSync(t, "team/s")
				if diff := cmp.Diff([]string{"patch secrets team/s"}, f.writes()); diff != "" || len(f.reviewer.reviewed) != 0 {
					t.Errorf("%d reviews, writes (-want +got):\n%s", len(f.reviewer.reviewed), diff)
				}
			})
		}
	}
}

func TestATokenThatIsAcceptedAsAnotherAccountIsReplaced(t *testing.T) {
	f := newCheckFixture(t, "opaque")
	f.reviewer.answer = tokenreview.Result{Username: "system:serviceaccount:team:other"}
	f.syncS(t)
	if got := f.writes(); len(got) == 0 || got[0] != "patch secrets team/s" {
		t.Errorf("writes %v", got)
	}
}

func TestWhatIsLeftAloneHasOneEvent(t *testing.T) {
	cases := map[string]struct {
		inToken string
		inOpts  []testkit.Option
		inUser  string
		want    string
	}{
		"accepted": {inToken: "opaque", inUser: "system:serviceaccount:team:robot", want: "Normal KeptToken The token in this secret stays: "},
		"of another, kept by annotation": {
			inToken: signedBy(t, "p256", func(c *token.LegacyClaims) { c.SecretName = "other" }), inOpts: []testkit.Option{testkit.WithAnnotation(api.ResignAnnotation, "never")},
			want: "Warning KeptToken The token in this secret was made for another secret or service account. It stays, because the secret or its namespace has the annotation sakeeper.io/resign=never",
		},
		"made up, invalidated by the cleaner": {
			inToken: "invalid", inOpts: []testkit.Option{testkit.WithLabel(token.InvalidSinceLabel, "2026-01-02")},
			want: "Warning KeptToken No known key verifies the token",
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			f := newCheckFixture(t, tc.inToken, tc.inOpts...)
			f.reviewer.answer = tokenreview.Result{Username: tc.inUser}
			for range 10 {
				f.syncS(t)
				f.advance(time.Hour)
			}
			events := testkit.Events(f.recorder)
			if len(events) != 1 || !strings.HasPrefix(events[0], tc.want) || len(f.writes()) > 0 {
				t.Errorf("events %q, writes %v", events, f.writes())
			}
		})
	}
}
