package tokensecret

import (
	"crypto/sha256"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/internal/tokenreview"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

func TestRefusalsBeginAnewAfterARestart(t *testing.T) {
	f := newCheckFixture(t, signedBy(t, "p384"))
	f.reviewer.answer = tokenreview.Result{Reason: "unknown key"}
	for range 2 { // of the three that it takes
		f.syncS(t)
		f.advance(reviewInterval)
	}
	f = f.restarted(t)
	f.syncS(t)
	f.advance(firstReviewDelay)
	for range 2 {
		f.syncS(t)
		f.advance(reviewInterval)
	}
	if len(f.reviewer.reviewed) != 4 || len(f.writes()) > 0 || len(f.notes()) > 0 {
		t.Errorf("%d reviews, writes %v, notes %v", len(f.reviewer.reviewed), f.writes(), f.notes())
	}
	f.syncS(t)
	if diff := cmp.Diff([]string{"patch secrets team/s"}, f.writes()[:1]); diff != "" || len(f.reviewer.reviewed) != 5 {
		t.Errorf("%d reviews, writes (-want +got):\n%s", len(f.reviewer.reviewed), diff)
	}
}

// Former versions noted refusals too.
func TestARefusalThatWasNotedIsIgnoredAndGoesWithTheToken(t *testing.T) {
	compact := signedBy(t, "p384")
	fingerprint := tokenCheck{token: sha256.Sum256([]byte(compact)), keys: testkit.Keys("p256", "rsa2048").ID()}.fingerprint()
	f := newCheckFixture(t, compact, testkit.WithAnnotation(api.ReviewedAnnotation, fingerprint+" refused 2 2026-01-02T03:04:00Z"))
	f.reviewer.answer = tokenreview.Result{Reason: "unknown key"}
	for i := 0; i < 15 && len(f.writes()) == 0; i++ {
		f.syncS(t)
		f.advance(time.Minute)
	}
	if len(f.reviewer.reviewed) != 3 {
		t.Errorf("%d reviews", len(f.reviewer.reviewed))
	}
	requests := testkit.Requests(f.client.Actions())
	written := slices.IndexFunc(requests, func(r testkit.Request) bool { return r.Verb == "patch" })
	annotations := requests[written].Body.(map[string]any)["metadata"].(map[string]any)["annotations"].(map[string]any)
	if note, ok := annotations[api.ReviewedAnnotation]; !ok || note != nil {
		t.Errorf("the new token is written with annotations %v: the note about the old one must go", annotations)
	}
}

func TestAnAcceptedTokenIsNotReviewedAfterARestart(t *testing.T) {
	f := newCheckFixture(t, signedBy(t, "p384"))
	f.reviewer.answer = tokenreview.Result{Username: "system:serviceaccount:team:robot"}
	for range 5 {
		f.syncS(t)
		f = f.restarted(t)
		f.advance(time.Hour)
	}
	if len(f.reviewer.reviewed) != 1 || len(f.notes()) != 1 || len(f.writes()) != 0 {
		t.Errorf("%d reviews, notes %v, writes %v", len(f.reviewer.reviewed), f.notes(), f.writes())
	}
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

func TestATokenIsCheckedAgainIfTheNoteIsRemoved(t *testing.T) {
	compact := signedBy(t, "p384")
	f := newCheckFixture(t, compact)
	f.reviewer.answer = tokenreview.Result{Username: "system:serviceaccount:team:robot"}
	f.syncS(t)
	f.cache(t, secret(testkit.WithData("token", compact))) // without a note
	f.reviewer.answer = tokenreview.Result{Reason: "unknown key"}
	for i := 0; i < 15 && len(f.writes()) == 0; i++ {
		if _, err := f.sync(f.context(t), objectName("team/s")); err != nil {
			t.Fatal(err)
		}
		f.advance(time.Minute)
	}
	if diff := cmp.Diff([]string{"patch secrets team/s"}, f.writes()); diff != "" || len(f.reviewer.reviewed) != 4 {
		t.Errorf("%d reviews, writes (-want +got):\n%s", len(f.reviewer.reviewed), diff)
	}
}
