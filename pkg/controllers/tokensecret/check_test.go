package tokensecret

import (
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/token"
)

func TestTokensThatAreNotReviewed(t *testing.T) {
	cases := map[string]struct {
		inToken string
		inOpts  []testkit.Option
		want    tokenStatus
	}{
		"signed by the key that signs":            {inToken: signed(signingKey), want: current},
		"signed by a key that verifies":           {inToken: signed(olderKey), want: older},
		"unknown key, kept by annotation":         {inToken: signed(unknownKey), inOpts: []testkit.Option{neverResign()}, want: maybeDead},
		"unknown key, invalidated by the cleaner": {inToken: signed(unknownKey), inOpts: []testkit.Option{invalidated()}, want: maybeDead},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			f := newCheckFixture(t, tc.inToken, tc.inOpts...)
			f.check(t)
			f.expectStatus(t, tc.want)
			f.expect(t, 0)
		})
	}
}

func TestATokenIsDeadAfterThreeRefusalsOverTenMinutes(t *testing.T) {
	for name, compact := range map[string]string{
		"of an unknown key":                    signed(unknownKey),
		"of another Secret, by an unknown key": signed(unknownKey, ofSecret("other")),
		"truncated":                            truncated(signed(signingKey)),
		"with a line break":                    signed(signingKey) + "\n",
		"made up":                              "invalid",
		"a line break":                         "\n",
		"no text":                              "\xff\xfe",
		"a megabyte of garbage":                strings.Repeat("garbage.", 1<<17),
	} {
		t.Run(name, func(t *testing.T) {
			f := newCheckFixture(t, compact)
			f.expectStatus(t, maybeDead)
			took, writes := f.checkFor(t, time.Hour)
			if expectRequests(t, writes, resigned); took != 10*time.Minute {
				t.Errorf("it took %v", took)
			}
			want := []string{"Normal ResignedToken The token was signed anew, with key " + testkit.Keys(signingKey).Signing().PublicKey().ID() +
				", because no known key verifies its token, or it names a former service account. " +
				"Copies of the old one are refused from now on involvedObject{kind=Secret,apiVersion=v1}"}
			if diff := cmp.Diff(want, testkit.Events(f.recorder)); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
			sent := strings.TrimSpace(compact) // as clients send it
			if got, want := f.reviewer.reviewed, []string{sent, sent, sent}; !slices.Equal(got, want) && sent != "" && utf8.ValidString(sent) {
				t.Errorf("reviewed %q", got)
			}
		})
	}
}

// truncated is a token that lacks its last part.
func truncated(compact string) string { return compact[:strings.LastIndex(compact, ".")] }

func TestATokenThatTheAPIServerAcceptsIsKeptAndReviewedOnce(t *testing.T) {
	f := newCheckFixture(t, signed(unknownKey))
	f.reviewer.user = accountUser
	for range 20 {
		f.check(t)
		f.advance(time.Hour)
	}
	f.tokens.set = testkit.Keys(signingKey, olderKey) // equal keys make no difference
	f.check(t)
	f.expect(t, 1, "note team/s")
	// With other keys it is reviewed again.
	f.tokens.set = testkit.Keys("p521", olderKey)
	f.check(t)
	f.advance(firstReviewDelay)
	f.check(t)
	f.expect(t, 1, "note team/s")
}

func TestOneAcceptanceEndsACheck(t *testing.T) {
	f := newCheckFixture(t, signed(unknownKey))
	for _, user := range []string{"", "", accountUser, "", "", ""} {
		f.reviewer.user = user
		f.check(t)
		f.advance(reviewInterval)
	}
	f.expect(t, 3, "note team/s")
}

func TestAFailedReviewIsNoRefusal(t *testing.T) {
	f := newCheckFixture(t, signed(unknownKey))
	f.reviewer.err = errBoom
	for range 5 {
		if _, err := f.syncS(t); err == nil || err.Error() != "check the token of secret team/s: boom" {
			t.Errorf("error %v", err)
		}
		f.advance(10 * time.Minute)
	}
	f.expect(t, 5)
}

func TestTokenStatus(t *testing.T) {
	refused := func(n int) tokenCheck { return tokenCheck{refusals: n} }
	cases := map[string]struct {
		in   tokenInfo
		want tokenStatus
	}{
		"none":                              {in: tokenInfo{none: true}, want: current},
		"not made for this Secret":          {in: tokenInfo{}, want: maybeDead},
		"that, refused three times":         {in: tokenInfo{check: refused(3)}, want: dead},
		"that, but accepted":                {in: tokenInfo{check: tokenCheck{accepted: true}}, want: accepted},
		"made for another, of no known key": {in: tokenInfo{other: true}, want: maybeDead},
		"made for another, of a known key":  {in: tokenInfo{other: true, verifiedBy: "former"}, want: misplaced},
		"a bound one of another account":    {in: tokenInfo{check: tokenCheck{otherAccount: true}}, want: misplaced},
		"of a former account":               {in: tokenInfo{own: true, verifiedBy: "signs", staleUID: true}, want: maybeDead},
		"of a former account, refused once": {in: tokenInfo{own: true, verifiedBy: "signs", staleUID: true, check: refused(1)}, want: maybeDead},
		"of a former account, and twice":    {in: tokenInfo{own: true, verifiedBy: "signs", staleUID: true, check: refused(2)}, want: dead},
		"of a former account, but accepted": {in: tokenInfo{own: true, verifiedBy: "signs", staleUID: true, check: tokenCheck{accepted: true}}, want: accepted},
		"of the key that signs":             {in: tokenInfo{own: true, verifiedBy: "signs"}, want: current},
		"of it, though refused":             {in: tokenInfo{own: true, verifiedBy: "signs", check: refused(3)}, want: current},
		"of a key that verifies":            {in: tokenInfo{own: true, verifiedBy: "former"}, want: older},
		"of no known key":                   {in: tokenInfo{own: true}, want: maybeDead},
		"of no known key, refused twice":    {in: tokenInfo{own: true, check: refused(2)}, want: maybeDead},
		"of no known key, and three times":  {in: tokenInfo{own: true, check: refused(3)}, want: dead},
		"of no known key, but accepted":     {in: tokenInfo{own: true, check: tokenCheck{refusals: 2, accepted: true}}, want: accepted},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := tc.in.status("signs"); got != tc.want {
				t.Errorf("got %d, want %d", got, tc.want)
			}
		})
	}
}

func TestAPublishedKeyVerifiesATokenWithoutAReview(t *testing.T) {
	f := newCheckFixture(t, signed(unknownKey))
	f.tokens.incomplete = true
	f.checkFor(t, 20*time.Minute)
	f.expect(t, 0) // before it is known which keys the API server publishes
	f.tokens.set, f.tokens.incomplete = testkit.Keys(signingKey, olderKey, unknownKey), false
	f.checkFor(t, 20*time.Minute)
	f.expect(t, 0)
	f.expectStatus(t, older)
	f.tokens.set = testkit.Keys(signingKey, olderKey) // the key is not published any more
	_, writes := f.checkFor(t, 20*time.Minute)
	expectRequests(t, writes, resigned)
	f.expect(t, 3)
}

// Also one of a key that the API server turns out to publish.
func TestATokenOfAnotherIsReplacedAtOnceWithoutAReview(t *testing.T) {
	for name, change := range map[string]func(*token.LegacyClaims){
		"another Secret": ofSecret("other"), "another account": ofOtherName, "another namespace": ofOtherNamespace,
	} {
		for _, key := range []string{signingKey, olderKey, unknownKey} {
			t.Run(name+" by "+key, func(t *testing.T) {
				f := newFixture(t, robot(), secret(withToken(signed(key, change))))
				f.followSecrets(t)
				f.tokens.set = testkit.Keys(signingKey, olderKey, unknownKey)
				f.check(t)
				f.expect(t, 0, resigned)
			})
		}
	}
}

func TestATokenThatIsAcceptedAsAnotherAccountIsReplaced(t *testing.T) {
	f := newCheckFixture(t, "opaque")
	f.reviewer.user = "system:serviceaccount:team:other"
	f.check(t)
	f.expect(t, 1, resigned)
}

func TestATokenOfAFormerAccountIsReplacedAfterTwoRefusals(t *testing.T) {
	for _, key := range []string{signingKey, unknownKey} { // the API server turns out to publish that
		t.Run(key, func(t *testing.T) {
			f := newFixture(t, robot(), secret(withToken(signed(key, ofOtherUID))))
			f.followSecrets(t)
			f.tokens.set = testkit.Keys(signingKey, unknownKey)
			f.check(t)
			f.advance(formerReviewInterval - time.Second)
			f.check(t)
			f.expect(t, 1)
			f.advance(time.Second)
			f.check(t)
			f.expect(t, 1, resigned)
		})
	}
}

// The API server's cache may accept a token for 10 seconds after its account was replaced.
func TestAnEarlyAcceptanceOfAFormerAccountIsNotBelieved(t *testing.T) {
	f := newFixture(t, robot(), secret(withToken(signed(signingKey, ofOtherUID))))
	f.reviewer.user = accountUser
	if requeueAfter := f.syncOnce(t, "s"); requeueAfter != firstReviewDelay {
		t.Errorf("requeued after %v", requeueAfter)
	}
	f.expectStatus(t, maybeDead)
	f.advance(firstReviewDelay)
	f.syncOnce(t, "s")
	f.expectStatus(t, accepted)
}

func TestThePublishedKeysAreReadAgainForAnUnknownKey(t *testing.T) {
	for key, want := range map[string]bool{signingKey: false, unknownKey: true} {
		if f := newCheckFixture(t, signed(key)); (f.tokens.refreshed > 0) != want {
			t.Errorf("for a token of %s they were, %d times", key, f.tokens.refreshed)
		}
	}
}

func TestACheckIsOfOneToken(t *testing.T) {
	f := newCheckFixture(t, signed(unknownKey))
	f.check(t)
	f.advance(reviewInterval)
	f.check(t)
	f.expect(t, 2)
	// Another client writes another token, which the cache does not have yet.
	other := secret(withToken(signed("p521")))
	f.server.OnChange(nil)
	f.server.Set(other)
	f.advance(reviewInterval)
	f.check(t)
	f.expect(t, 0)
	f.cache(t, other)
	f.check(t)
	f.advance(firstReviewDelay)
	f.check(t)
	f.expect(t, 1)
	f.server.Remove(other)
	f.advance(reviewInterval)
	f.check(t)
	f.expect(t, 0)
	if err := f.cfg.Secrets.GetStore().Delete(f.cached()); err != nil {
		t.Fatal(err)
	}
	f.check(t)
	if len(f.checks.bySecret) > 0 {
		t.Errorf("remembered checks of deleted Secrets: %v", f.checks.bySecret)
	}
}

func TestOldRefusalsDoNotCount(t *testing.T) {
	f := newCheckFixture(t, signed(unknownKey))
	f.checkFor(t, 6*time.Minute)
	f.expect(t, 2)
	f.advance(refusalLifetime + time.Minute)
	_, writes := f.checkFor(t, 9*time.Minute) // three refusals take 10
	expectRequests(t, writes)
}
