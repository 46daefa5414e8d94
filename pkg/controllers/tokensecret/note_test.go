package tokensecret

import (
	"crypto/sha256"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/testkit/fakeapi"
)

func TestRefusalsBeginAnewAfterARestart(t *testing.T) {
	f := newCheckFixture(t, signed(unknownKey))
	f.checkFor(t, 6*time.Minute)
	f.expect(t, 2) // of the three that it takes
	f = f.restarted(t)
	f.check(t)
	f.advance(firstReviewDelay)
	took, writes := f.checkFor(t, time.Hour)
	if expectRequests(t, writes, resigned); took != 10*time.Minute {
		t.Errorf("it took %v", took)
	}
	f.expect(t, 3)
}

// Former versions noted refusals too.
func TestARefusalThatWasNotedIsIgnoredAndGoesWithTheToken(t *testing.T) {
	compact := signed(unknownKey)
	fingerprint := tokenCheck{token: sha256.Sum256([]byte(compact)), keys: testkit.Keys(signingKey, olderKey).ID()}.fingerprint()
	f := newCheckFixture(t, compact, testkit.WithAnnotation(api.ReviewedAnnotation, fingerprint+" refused 2 2026-01-02T03:04:00Z"))
	_, writes := f.checkFor(t, time.Hour)
	expectRequests(t, writes, resigned)
	f.expect(t, 3)
	if note, ok := fakeapi.Get[corev1.Secret](f.server, "team/s").Annotations[api.ReviewedAnnotation]; ok {
		t.Errorf("the note about the old token is still %q", note)
	}
}

func TestAnAcceptedTokenIsNotReviewedAfterARestart(t *testing.T) {
	f := newCheckFixture(t, signed(unknownKey))
	f.reviewer.user = accountUser
	for range 5 {
		f.check(t)
		f = f.restarted(t)
		f.advance(time.Hour)
	}
	f.expect(t, 1, "note team/s")
}

func TestATokenIsCheckedAgainIfTheNoteIsRemoved(t *testing.T) {
	compact := signed(unknownKey)
	f := newCheckFixture(t, compact)
	f.reviewer.user = accountUser
	f.check(t)
	f.expect(t, 1, "note team/s")
	f.server.Set(secret(withToken(compact))) // without a note
	f.reviewer.user = ""
	_, writes := f.checkFor(t, time.Hour)
	expectRequests(t, writes, resigned)
	f.expect(t, 3)
}

func TestNotes(t *testing.T) {
	set := testkit.Keys("p256", "rsa2048")
	fresh := tokenCheck{token: sha256.Sum256([]byte("a token")), keys: set.ID()}
	fingerprint := fresh.fingerprint()
	accepted := fresh
	accepted.accepted = true
	for name, tc := range map[string]struct {
		in   string
		want tokenCheck
	}{
		"none":              {want: fresh},
		"accepted":          {in: fingerprint + " accepted", want: accepted},
		"refused":           {in: fingerprint + " refused 2 2026-01-02T03:04:05Z", want: fresh},
		"of another token":  {in: strings.Repeat("0", 32) + " accepted", want: fresh},
		"no fingerprint":    {in: "accepted", want: fresh},
		"an unknown result": {in: fingerprint + " forgiven", want: fresh},
	} {
		t.Run(name, func(t *testing.T) {
			if got := fresh.continueFrom(tc.in); got != tc.want {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
		})
	}
	for name, other := range map[string]tokenCheck{
		"of another token":          {token: sha256.Sum256([]byte("another")), keys: set.ID()},
		"where another key signs":   {token: fresh.token, keys: testkit.Keys("rsa2048", "p256").ID()},
		"where another key is gone": {token: fresh.token, keys: testkit.Keys("p256").ID()},
	} {
		t.Run(name, func(t *testing.T) {
			if got := other.continueFrom(accepted.note()); got != other {
				t.Errorf("continued from it: %+v", got)
			}
		})
	}
	refused := fresh
	refused.refusals, refused.refused = 2, testkit.Instant()
	if accepted.note() != fingerprint+" accepted" || fresh.note() != "" || refused.note() != "" {
		t.Errorf("notes %q, %q, %q", accepted.note(), fresh.note(), refused.note())
	}
}

// The next review is due in five minutes, even if the clock was set back.
func TestAReviewIsDueFiveMinutesAfterTheLast(t *testing.T) {
	for ahead, want := range map[time.Duration]time.Duration{-time.Hour: -55 * time.Minute, 0: reviewInterval, 24 * time.Hour: reviewInterval} {
		check := tokenCheck{refusals: 1, refused: testkit.Instant().Add(ahead)}
		if got := check.untilReview(testkit.Instant(), false); got != want {
			t.Errorf("refused %v from now: waits %v, want %v", ahead, got, want)
		}
	}
}
