package tokensecret

import (
	"crypto/sha256"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/internal/tokenreview"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

func TestACheckContinuesAfterARestart(t *testing.T) {
	compact := signedBy(t, "p384")
	f := newCheckFixture(t, compact)
	f.reviewer.answer = tokenreview.Result{Reason: "unknown key"}
	for range 3 {
		if got := f.writes(); len(got) > 0 {
			t.Fatalf("wrote %v", got)
		}
		requeueAfter := f.syncS(t)
		f = f.restarted(t)
		f.advance(requeueAfter)
	}
	fingerprint := tokenCheck{token: sha256.Sum256([]byte(compact)), keys: f.cfg.Keys().ID()}.fingerprint()
	want := []string{fingerprint + " refused 1 2026-01-02T03:04:20Z", fingerprint + " refused 2 2026-01-02T03:09:20Z"}
	if diff := cmp.Diff(want, f.notes()); diff != "" {
		t.Errorf("notes (-want +got):\n%s", diff)
	}
	if len(f.reviewer.reviewed) != 3 {
		t.Errorf("%d reviews", len(f.reviewer.reviewed))
	}
	requests := testkit.Requests(f.client.Actions())
	written := slices.IndexFunc(requests, func(r testkit.Request) bool { return r.Verb == "patch" && noteOf(r) == "" })
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

func TestACheckContinuesIfItsNotesAreRemoved(t *testing.T) {
	f := newFixture(t, apiServer{}, testkit.ServiceAccount("team/robot"))
	stored := secret(testkit.WithData("token", signedBy(t, "p384")))
	f.cache(t, stored) // as if each note were removed at once
	f.client.PrependReactor("get", "secrets", func(clienttesting.Action) (bool, runtime.Object, error) { return true, stored, nil })
	f.reviewer.answer = tokenreview.Result{Reason: "unknown key"}
	for len(f.writes()) == 0 && f.clock.Since(testkit.Instant()) < time.Hour {
		f.syncS(t)
		f.advance(time.Minute)
	}
	if took := f.clock.Since(testkit.Instant()); took != 12*time.Minute || len(f.reviewer.reviewed) != 3 {
		t.Errorf("%d reviews, the last after %v", len(f.reviewer.reviewed), took)
	}
	if got := len(f.notes()); got != 18 { // the write backoff is still below a minute
		t.Errorf("%d notes, want 9 of each of the two: %v", got, f.notes())
	}
}

func TestNotes(t *testing.T) {
	set := testkit.Keys("p256", "rsa2048")
	fresh := tokenCheck{token: sha256.Sum256([]byte("a token")), keys: set.ID()}
	fingerprint := fresh.fingerprint()
	others := map[string]tokenCheck{
		"of another token":          {token: sha256.Sum256([]byte("another")), keys: set.ID()},
		"where another key signs":   {token: fresh.token, keys: testkit.Keys("rsa2048", "p256").ID()},
		"where another key is gone": {token: fresh.token, keys: testkit.Keys("p256").ID()},
	}
	refused := func(n int) tokenCheck {
		c := fresh
		c.refusals, c.refused, c.fromNote = n, testkit.Instant(), true
		return c
	}
	accepted := fresh
	accepted.accepted = true

	cases := map[string]struct {
		in   string
		want tokenCheck
	}{
		"none":                                {want: fresh},
		"accepted":                            {in: fingerprint + " accepted", want: accepted},
		"refused":                             {in: fingerprint + " refused 2 2026-01-02T03:04:05Z", want: refused(2)},
		"the last refusal is not from a note": {in: fingerprint + " refused 3 2026-01-02T03:04:05Z", want: refused(2)},
		"of another token":                    {in: strings.Repeat("0", 32) + " accepted", want: fresh},
		"no fingerprint":                      {in: "accepted", want: fresh},
		"no number":                           {in: fingerprint + " refused many 2026-01-02T03:04:05Z", want: fresh},
		"a negative number":                   {in: fingerprint + " refused -1 2026-01-02T03:04:05Z", want: fresh},
		"of an hour ago":                      {in: fingerprint + " refused 2 2026-01-02T02:04:04Z", want: fresh},
		"from a clock ahead":                  {in: fingerprint + " refused 2 2026-01-02T03:06:00Z", want: fresh},
		"no date":                             {in: fingerprint + " refused 2 yesterday", want: fresh},
		"too short":                           {in: fingerprint + " refused 2", want: fresh},
		"an unknown result":                   {in: fingerprint + " forgiven", want: fresh},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := fresh.continueFrom(tc.in, testkit.Instant().Add(time.Minute)); got != tc.want {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
		})
	}
	for name, other := range others {
		t.Run(name, func(t *testing.T) {
			if got := other.continueFrom(accepted.note(), testkit.Instant()); got != other {
				t.Errorf("continued from it: %+v", got)
			}
		})
	}
	if refused(1).note() != fingerprint+" refused 1 2026-01-02T03:04:05Z" || accepted.note() != fingerprint+" accepted" || fresh.note() != "" {
		t.Errorf("notes %q, %q, %q", refused(1).note(), accepted.note(), fresh.note())
	}
	for ahead, want := range map[time.Duration]time.Duration{-time.Hour: -55 * time.Minute, 0: reviewInterval, 24 * time.Hour: reviewInterval} {
		c := refused(1)
		c.refused = testkit.Instant().Add(ahead)
		if got := c.untilReview(testkit.Instant(), false); got != want {
			t.Errorf("refused %v from now: waits %v, want %v", ahead, got, want)
		}
	}
}

func TestACheckContinuesIfItsNotesAreRefused(t *testing.T) {
	for name, refusal := range map[string]error{
		"by a policy": testkit.QuotaExceeded(), "as a conflict": testkit.Conflict(),
	} {
		t.Run(name, func(t *testing.T) {
			f := newCheckFixture(t, signedBy(t, "p384"))
			f.reviewer.answer = tokenreview.Result{Reason: "unknown key"}
			f.client.PrependReactor("patch", "secrets", func(action clienttesting.Action) (bool, runtime.Object, error) {
				note := noteOf(testkit.Requests([]clienttesting.Action{action})[0])
				return note != "", nil, refusal
			})
			for i := 0; i < 15 && len(f.writes()) == 0; i++ {
				_, _ = f.sync(f.context(t), objectName("team/s")) // the note fails each time
				f.advance(time.Minute)
			}
			if diff := cmp.Diff([]string{"patch secrets team/s"}, f.writes()); diff != "" || len(f.reviewer.reviewed) != 3 {
				t.Errorf("%d reviews, writes (-want +got):\n%s", len(f.reviewer.reviewed), diff)
			}
		})
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
