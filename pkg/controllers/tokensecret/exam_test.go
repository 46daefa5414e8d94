package tokensecret

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/internal/tokenreview"
	"github.com/sakeeper/sakeeper/pkg/internal/workqueue"
	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// signedBy is a real token of team/s for team/robot.
func signedBy(t *testing.T, key string, change ...func(*token.LegacyClaims)) string {
	t.Helper()
	claims := token.LegacyClaims{Namespace: "team", SecretName: "s", ServiceAccountName: "robot", ServiceAccountUID: string(testkit.AccountUID)}
	for _, c := range change {
		c(&claims)
	}
	set := testkit.Keys(key)
	compact, err := token.NewSigner(func() *keys.Set { return set }).SignLegacy(t.Context(), claims)
	if err != nil {
		t.Fatal(err)
	}
	return compact
}

// newExamined is a controller that knows p256, which signs, and rsa2048, and has the
// Secret team/s of team/robot with that token, in its cache and at the API server. A
// token that looks dead has done so for long enough to be reviewed.
func newExamined(t *testing.T, compact string, opts ...testkit.Option) fixture {
	t.Helper()
	held := secret(append([]testkit.Option{testkit.WithData("token", compact)}, opts...)...)
	f := newFixture(t, server{}, testkit.ServiceAccount("team/robot"), held)
	f.client.PrependReactor("get", "secrets", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, held.DeepCopy(), nil
	})
	f.takeNotes(t, held)
	f.visit(t)
	f.pass(settle)
	return f
}

// takeNotes has notes of reviews arrive in held, and in the cache of f.
func (f fixture) takeNotes(t *testing.T, held *corev1.Secret) {
	t.Helper()
	f.client.PrependReactor("patch", "secrets", func(action clienttesting.Action) (bool, runtime.Object, error) {
		if note := noteOf(testkit.Requests([]clienttesting.Action{action})[0]); note != "" {
			held.Annotations[api.ReviewedAnnotation] = note
			f.cache(t, held)
		}
		return true, held.DeepCopy(), nil
	})
	f.cache(t, held)
}

// noteOf is the note of a review that a patch writes, if it does nothing else.
func noteOf(r testkit.Request) string {
	body, _ := r.Body.(map[string]any)
	metadata, _ := body["metadata"].(map[string]any)
	annotations, _ := metadata["annotations"].(map[string]any)
	note, _ := annotations[api.ReviewedAnnotation].(string)
	if len(body) != 1 || len(annotations) != 1 || len(metadata) != 3 {
		return ""
	}
	return note
}

// visit syncs team/s, and again where the sync asks for that at once.
func (f fixture) visit(t *testing.T) (again time.Duration) {
	t.Helper()
	for range 3 { // an exam that ends queues the Secret again, and so does its note
		var err error
		if again, err = f.syncSecret(f.context(t), keyOf("team/s")); err != nil && !errors.Is(err, workqueue.ErrRequeueLater) {
			t.Fatal(err)
		}
	}
	return again
}

// notes are the notes of reviews that were written.
func (f fixture) notes() []string {
	var list []string
	for _, r := range testkit.Requests(f.client.Actions()) {
		if note := noteOf(r); note != "" {
			list = append(list, note)
		}
	}
	return list
}

// writes are the requests but GETs and notes of reviews.
func (f fixture) writes() []string {
	var list []string
	for _, r := range testkit.Requests(f.client.Actions()) {
		if r.Verb != "get" && noteOf(r) == "" {
			list = append(list, r.Verb+" "+r.Resource+" "+r.Name)
		}
	}
	return list
}

func TestOnlyTokensThatMayBeDeadAreReviewed(t *testing.T) {
	otherUID := func(c *token.LegacyClaims) { c.ServiceAccountUID = string(testkit.OtherUID) }
	otherSecret := func(c *token.LegacyClaims) { c.SecretName = "another" }
	cases := map[string]struct {
		inToken string
		inOpts  []testkit.Option
		want    standing
	}{
		"signed by the key that signs":      {inToken: signedBy(t, "p256"), want: current},
		"signed by a key that verifies":     {inToken: signedBy(t, "rsa2048"), want: older},
		"signed by an unknown key":          {inToken: signedBy(t, "p384"), want: suspect},
		"for a former account of that name": {inToken: signedBy(t, "p256", otherUID), want: suspect},
		"made for another Secret":           {inToken: signedBy(t, "p384", otherSecret), want: foreign},
		"no JWT":                            {inToken: "hunter2", want: foreign},
		"a megabyte of garbage":             {inToken: strings.Repeat("garbage.", 1<<17), want: foreign},
		"unknown key, but people want to keep it": {
			inToken: signedBy(t, "p384"), inOpts: []testkit.Option{testkit.WithAnnotation(api.ResignAnnotation, "never")}, want: suspect,
		},
		"unknown key, but the cleaner withdrew it": {
			inToken: signedBy(t, "p384"), inOpts: []testkit.Option{testkit.WithLabel(token.InvalidSinceLabel, "2026-01-02")}, want: suspect,
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			f := newExamined(t, tc.inToken, tc.inOpts...)
			f.reviewer.answer = tokenreview.Result{Reason: "no"}
			cached, _ := cache.Get(f.cfg.Secrets, "team/s")
			if got := f.standingOf(cached); got != tc.want {
				t.Errorf("judged %d, want %d", got, tc.want)
			}
			f.visit(t)
			want := 0
			if tc.want == suspect && len(tc.inOpts) == 0 {
				want = 1
			}
			if len(f.reviewer.asked) != want {
				t.Errorf("%d reviews, want %d", len(f.reviewer.asked), want)
			}
			if got := f.writes(); len(got) > 0 {
				t.Errorf("wrote %v", got)
			}
		})
	}
}

func TestATokenIsDeadAfterThreeRefusalsOverTenMinutes(t *testing.T) {
	f := newExamined(t, signedBy(t, "p384"))
	f.reviewer.answer = tokenreview.Result{Reason: "unknown key"}
	began := f.clock.Now()
	for len(f.writes()) == 0 && f.clock.Now().Sub(began) < time.Hour {
		if again := f.visit(t); again > 5*time.Minute {
			t.Fatalf("looks again after %v", again)
		}
		f.pass(time.Minute)
	}
	if took := f.clock.Now().Sub(began); took != 11*time.Minute { // the last step passed one more
		t.Errorf("it took %v", took)
	}
	if len(f.reviewer.asked) != 3 {
		t.Errorf("%d reviews", len(f.reviewer.asked))
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

func TestATokenThatTheAPIServerAcceptsIsLeftAloneAndAskedAboutOnce(t *testing.T) {
	f := newExamined(t, signedBy(t, "p384"))
	f.reviewer.answer = tokenreview.Result{Username: "system:serviceaccount:team:robot"}
	for range 100 {
		f.visit(t)
		f.pass(time.Hour)
	}
	if len(f.reviewer.asked) != 1 || len(f.writes()) != 0 {
		t.Errorf("%d reviews, writes %v", len(f.reviewer.asked), f.writes())
	}
	// Other keys are another question.
	f.setKeys(testkit.Keys("p521", "rsa2048"))
	f.visit(t)
	f.pass(settle)
	f.visit(t)
	if len(f.reviewer.asked) != 2 {
		t.Errorf("%d reviews after the keys changed", len(f.reviewer.asked))
	}
}

// restarted is another process with the same caches.
func (f fixture) restarted(t *testing.T) fixture {
	t.Helper()
	f.Controller = newController(t, f.client, f.metadata, f.recorder, f.clock, testkit.Bundle, f.reviewer)
	held, err := f.client.CoreV1().Secrets("team").Get(t.Context(), "s", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	f.client.PrependReactor("get", "secrets", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, held.DeepCopy(), nil
	})
	f.cache(t, testkit.ServiceAccount("team/robot"))
	f.takeNotes(t, held)
	return f
}

func TestAnExamGoesOnAfterARestart(t *testing.T) {
	compact := signedBy(t, "p384")
	f := newExamined(t, compact)
	f.reviewer.answer = tokenreview.Result{Reason: "unknown key"}
	for range 3 {
		if got := f.writes(); len(got) > 0 {
			t.Fatalf("wrote %v", got)
		}
		again := f.visit(t)
		f = f.restarted(t)
		f.pass(again)
	}
	subject := exam{token: sha256.Sum256([]byte(compact)), keys: f.cfg.Keys().ID()}.subject()
	want := []string{subject + " refused 1 2026-01-02T03:04:20Z", subject + " refused 2 2026-01-02T03:09:20Z"}
	if diff := cmp.Diff(want, f.notes()); diff != "" {
		t.Errorf("notes (-want +got):\n%s", diff)
	}
	if len(f.reviewer.asked) != 3 {
		t.Errorf("%d reviews", len(f.reviewer.asked))
	}
	requests := testkit.Requests(f.client.Actions())
	written := slices.IndexFunc(requests, func(r testkit.Request) bool { return r.Verb == "patch" && noteOf(r) == "" })
	annotations := requests[written].Body.(map[string]any)["metadata"].(map[string]any)["annotations"].(map[string]any)
	if note, ok := annotations[api.ReviewedAnnotation]; !ok || note != nil {
		t.Errorf("the new token is written with annotations %v: the note about the old one must go", annotations)
	}
}

func TestWhatTheAPIServerAcceptedIsNotAskedAboutAfterARestart(t *testing.T) {
	f := newExamined(t, signedBy(t, "p384"))
	f.reviewer.answer = tokenreview.Result{Username: "system:serviceaccount:team:robot"}
	for range 5 {
		f.visit(t)
		f = f.restarted(t)
		f.pass(time.Hour)
	}
	if len(f.reviewer.asked) != 1 || len(f.notes()) != 1 || len(f.writes()) != 0 {
		t.Errorf("%d reviews, notes %v, writes %v", len(f.reviewer.asked), f.notes(), f.writes())
	}
}

func TestAnExamGoesOnWhereItsNotesAreRemoved(t *testing.T) {
	f := newFixture(t, server{}, testkit.ServiceAccount("team/robot"))
	held := secret(testkit.WithData("token", signedBy(t, "p384")))
	f.cache(t, held) // as if each note were gone at once
	f.client.PrependReactor("get", "secrets", func(clienttesting.Action) (bool, runtime.Object, error) { return true, held, nil })
	f.reviewer.answer = tokenreview.Result{Reason: "unknown key"}
	for len(f.writes()) == 0 && f.clock.Since(testkit.Instant()) < time.Hour {
		f.visit(t)
		f.pass(time.Minute)
	}
	if took := f.clock.Since(testkit.Instant()); took != 12*time.Minute || len(f.reviewer.asked) != 3 {
		t.Errorf("%d reviews, the last after %v", len(f.reviewer.asked), took)
	}
	if got := len(f.notes()); got != 10 {
		t.Errorf("%d notes, want 5 of each of the two: %v", got, f.notes())
	}
}

func TestNotes(t *testing.T) {
	set := testkit.Keys("p256", "rsa2048")
	begun := exam{token: sha256.Sum256([]byte("a token")), keys: set.ID()}
	subject := begun.subject()
	others := map[string]exam{
		"of another token":          {token: sha256.Sum256([]byte("another")), keys: set.ID()},
		"where another key signs":   {token: begun.token, keys: testkit.Keys("rsa2048", "p256").ID()},
		"where another key is gone": {token: begun.token, keys: testkit.Keys("p256").ID()},
	}
	refused := func(n int) exam {
		e := begun
		e.refusals, e.refused = n, testkit.Instant()
		return e
	}
	accepted := begun
	accepted.accepted = true

	cases := map[string]struct {
		in   string
		want exam
	}{
		"none":                   {want: begun},
		"accepted":               {in: subject + " accepted", want: accepted},
		"refused":                {in: subject + " refused 2 2026-01-02T03:04:05Z", want: refused(2)},
		"the last is heard here": {in: subject + " refused 3 2026-01-02T03:04:05Z", want: refused(2)},
		"of something else":      {in: strings.Repeat("0", 32) + " accepted", want: begun},
		"no subject":             {in: "accepted", want: begun},
		"no number":              {in: subject + " refused many 2026-01-02T03:04:05Z", want: begun},
		"a negative number":      {in: subject + " refused -1 2026-01-02T03:04:05Z", want: begun},
		"of an hour ago":         {in: subject + " refused 2 2026-01-02T02:04:04Z", want: begun},
		"from a clock ahead":     {in: subject + " refused 2 2026-01-02T03:06:00Z", want: begun},
		"no date":                {in: subject + " refused 2 yesterday", want: begun},
		"too short":              {in: subject + " refused 2", want: begun},
		"another word":           {in: subject + " forgiven", want: begun},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := begun.resume(tc.in, testkit.Instant().Add(time.Minute)); got != tc.want {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
		})
	}
	for name, other := range others {
		t.Run(name, func(t *testing.T) {
			if got := other.resume(accepted.note(), testkit.Instant()); got != other {
				t.Errorf("took over %+v", got)
			}
		})
	}
	if refused(1).note() != subject+" refused 1 2026-01-02T03:04:05Z" || accepted.note() != subject+" accepted" || begun.note() != "" {
		t.Errorf("notes %q, %q, %q", refused(1).note(), accepted.note(), begun.note())
	}
	for ahead, want := range map[time.Duration]time.Duration{-time.Hour: -55 * time.Minute, 0: examInterval, 24 * time.Hour: examInterval} {
		e := refused(1)
		e.refused = testkit.Instant().Add(ahead)
		if got := e.wait(testkit.Instant()); got != want {
			t.Errorf("refused %v from now: waits %v, want %v", ahead, got, want)
		}
	}
}

func TestStandings(t *testing.T) {
	cases := map[string]struct {
		in   evidence
		want standing
	}{
		"somebody else's":                   {in: evidence{verifiedBy: "signs"}, want: foreign},
		"of the key that signs":             {in: evidence{own: true, verifiedBy: "signs"}, want: current},
		"of a key that verifies":            {in: evidence{own: true, verifiedBy: "former"}, want: older},
		"of no known key":                   {in: evidence{own: true}, want: suspect},
		"of a former account":               {in: evidence{own: true, verifiedBy: "signs", staleUID: true}, want: suspect},
		"refused twice":                     {in: evidence{own: true, exam: exam{refusals: 2}}, want: suspect},
		"refused three times":               {in: evidence{own: true, exam: exam{refusals: 3}}, want: dead},
		"of a former account, and refused":  {in: evidence{own: true, verifiedBy: "former", staleUID: true, exam: exam{refusals: 3}}, want: dead},
		"of no known key, but accepted":     {in: evidence{own: true, exam: exam{refusals: 2, accepted: true}}, want: foreign},
		"of a former account, but accepted": {in: evidence{own: true, verifiedBy: "signs", staleUID: true, exam: exam{accepted: true}}, want: foreign},
		"verified, whatever was said":       {in: evidence{own: true, verifiedBy: "signs", exam: exam{refusals: 3}}, want: current},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := tc.in.standing("signs"); got != tc.want {
				t.Errorf("got %d, want %d", got, tc.want)
			}
		})
	}
}

func TestTokensThatStayAreCountedByNewKeysToo(t *testing.T) {
	for name, opt := range map[string]testkit.Option{
		"nobody may sign them anew": testkit.WithAnnotation(api.ResignAnnotation, "never"),
		"the cleaner withdrew it":   testkit.WithLabel(token.InvalidSinceLabel, "2026-01-02"),
	} {
		t.Run(name, func(t *testing.T) {
			f := newExamined(t, signedBy(t, "p384"), opt)
			f.visit(t)
			if got := testkit.Requests(f.client.Actions()); len(got) > 0 {
				t.Errorf("requests %v before the keys changed", got)
			}
			f.setKeys(testkit.Keys("p256", "rsa2048", "p521"))
			for range 3 {
				f.visit(t)
			}
			if got := testkit.Requests(f.client.Actions()); len(got) != 1 {
				t.Errorf("requests %v: one look at each token is enough", got)
			}
			f.setKeys(testkit.Keys("p256", "p384"))
			f.visit(t)
			cached, _ := cache.Get(f.cfg.Secrets, "team/s")
			if got := f.verifiedBy(cached, f.cfg.Keys()); got != testkit.Keys("p384").Signing().PublicKey().ID() {
				t.Errorf("verified by %q", got)
			}
			if len(f.reviewer.asked) > 0 || len(f.writes()) > 0 || len(f.notes()) > 0 {
				t.Errorf("%d reviews, writes %v, notes %v", len(f.reviewer.asked), f.writes(), f.notes())
			}
		})
	}
}

func TestOneAcceptanceEndsAnExam(t *testing.T) {
	f := newExamined(t, signedBy(t, "p384"))
	f.reviewer.answer = tokenreview.Result{Reason: "unknown key"}
	f.visit(t)
	f.pass(5 * time.Minute)
	f.visit(t)
	f.pass(5 * time.Minute)
	f.reviewer.answer = tokenreview.Result{Username: "system:serviceaccount:team:robot"}
	f.visit(t)
	f.reviewer.answer = tokenreview.Result{Reason: "unknown key"}
	for range 10 {
		f.pass(5 * time.Minute)
		f.visit(t)
	}
	if len(f.reviewer.asked) != 3 || len(f.writes()) != 0 {
		t.Errorf("%d reviews, writes %v", len(f.reviewer.asked), f.writes())
	}
}

func TestNoAnswerIsNoRefusal(t *testing.T) {
	f := newExamined(t, signedBy(t, "p384"))
	f.reviewer.err = errBoom
	for range 5 {
		if _, err := f.syncSecret(f.context(t), keyOf("team/s")); err == nil || err.Error() != "examine the token of secret team/s: boom" {
			t.Errorf("error %v", err)
		}
		f.pass(10 * time.Minute)
	}
	if got := f.writes(); len(got) > 0 {
		t.Errorf("wrote %v", got)
	}
}

func TestAKeyThatCameAfterTheTokenWasCachedVerifiesIt(t *testing.T) {
	f := newExamined(t, signedBy(t, "p384"))
	f.setKeys(testkit.Keys("p256", "p384"))
	f.visit(t)
	f.visit(t)
	if len(f.reviewer.asked) != 0 || len(f.writes()) != 0 {
		t.Errorf("%d reviews, writes %v", len(f.reviewer.asked), f.writes())
	}
	cached, _ := cache.Get(f.cfg.Secrets, "team/s")
	if got := f.standingOf(cached); got != older {
		t.Errorf("judged %d, want %d", got, older)
	}
}

func TestAnExamIsOfOneToken(t *testing.T) {
	f := newExamined(t, signedBy(t, "p384"))
	f.reviewer.answer = tokenreview.Result{Reason: "unknown key"}
	f.visit(t)
	f.pass(5 * time.Minute)
	f.visit(t)
	// Somebody put another one there, which the cache has not seen: it is not this
	// exam's to judge.
	other := secret(testkit.WithData("token", signedBy(t, "p521")))
	f.client.PrependReactor("get", "secrets", func(clienttesting.Action) (bool, runtime.Object, error) { return true, other, nil })
	f.pass(5 * time.Minute)
	f.visit(t)
	if len(f.reviewer.asked) != 2 {
		t.Errorf("%d reviews", len(f.reviewer.asked))
	}
	f.cache(t, other)
	f.visit(t)
	f.pass(settle)
	f.visit(t)
	if len(f.reviewer.asked) != 3 || len(f.writes()) != 0 {
		t.Errorf("%d reviews, writes %v", len(f.reviewer.asked), f.writes())
	}
	if err := f.cfg.Secrets.GetStore().Delete(cache.NewTokenSecret(other.DeepCopy(), nil)); err != nil {
		t.Fatal(err)
	}
	f.visit(t)
	if len(f.exams.bySecret) > 0 {
		t.Errorf("kept exams of Secrets that went: %v", f.exams.bySecret)
	}
}

// TestAKeyThatComesAndGoesCausesNoBurst: turns that were given out while all tokens were
// to be signed anew must not be used at once by the next rotation.
func TestAKeyThatComesAndGoesCausesNoBurst(t *testing.T) {
	f := newFixture(t, server{}, testkit.ServiceAccount("team/robot"))
	f.cfg.Resign = ResignAll
	names := make([]string, 20)
	for i := range names {
		names[i] = fmt.Sprint("s", i)
		old := secret(testkit.WithData("token", signedBy(t, "p256", func(c *token.LegacyClaims) { c.SecretName = names[i] })))
		old.Name = names[i]
		f.cache(t, old)
	}
	syncAll := func() (written int) {
		f.client.ClearActions()
		for _, name := range names {
			if _, err := f.syncSecret(f.context(t), keyOf("team/"+name)); err != nil && !errors.Is(err, workqueue.ErrRequeueLater) {
				t.Fatal(err)
			}
		}
		return len(f.writes())
	}
	former, next := testkit.Keys("p256", "rsa2048"), testkit.Keys("rsa2048", "p256")
	for range 2 {
		f.setKeys(next)
		if got := syncAll(); got > 1 {
			t.Errorf("%d tokens were signed anew at once", got)
		}
		f.setKeys(former)
		if got := syncAll(); got != 0 {
			t.Errorf("%d tokens of the key that signs were signed anew", got)
		}
		f.pass(time.Hour)
	}
}

func TestAnExamGoesOnWhereItsNotesAreRefused(t *testing.T) {
	for name, refusal := range map[string]error{
		"by a policy": testkit.QuotaExceeded(), "as a conflict": testkit.Conflict(),
	} {
		t.Run(name, func(t *testing.T) {
			f := newExamined(t, signedBy(t, "p384"))
			f.reviewer.answer = tokenreview.Result{Reason: "unknown key"}
			f.client.PrependReactor("patch", "secrets", func(action clienttesting.Action) (bool, runtime.Object, error) {
				note := noteOf(testkit.Requests([]clienttesting.Action{action})[0])
				return note != "", nil, refusal
			})
			for i := 0; i < 15 && len(f.writes()) == 0; i++ {
				_, _ = f.syncSecret(f.context(t), keyOf("team/s")) // the note fails each time
				f.pass(time.Minute)
			}
			if diff := cmp.Diff([]string{"patch secrets team/s"}, f.writes()); diff != "" || len(f.reviewer.asked) != 3 {
				t.Errorf("%d reviews, writes (-want +got):\n%s", len(f.reviewer.asked), diff)
			}
		})
	}
}

func TestWhoRemovesTheNoteGetsAnotherExam(t *testing.T) {
	compact := signedBy(t, "p384")
	f := newExamined(t, compact)
	f.reviewer.answer = tokenreview.Result{Username: "system:serviceaccount:team:robot"}
	f.visit(t)
	f.cache(t, secret(testkit.WithData("token", compact))) // without a note
	f.reviewer.answer = tokenreview.Result{Reason: "unknown key"}
	for i := 0; i < 15 && len(f.writes()) == 0; i++ {
		if _, err := f.syncSecret(f.context(t), keyOf("team/s")); err != nil {
			t.Fatal(err)
		}
		f.pass(time.Minute)
	}
	if diff := cmp.Diff([]string{"patch secrets team/s"}, f.writes()); diff != "" || len(f.reviewer.asked) != 4 {
		t.Errorf("%d reviews, writes (-want +got):\n%s", len(f.reviewer.asked), diff)
	}
}

func TestRefusalsOfLongAgoDoNotCount(t *testing.T) {
	f := newExamined(t, signedBy(t, "p384"))
	f.reviewer.answer = tokenreview.Result{Reason: "unknown key"}
	f.visit(t)
	f.pass(5 * time.Minute)
	f.visit(t)
	f.pass(lapse + time.Minute)
	for range 9 { // 9 minutes, of the more than 10 that three take
		f.visit(t)
		f.pass(time.Minute)
	}
	if got := f.writes(); len(got) > 0 {
		t.Errorf("wrote %v", got)
	}
}

// TestAKeyThatCameBackIsTriedAgain: also when the keys are those of the start.
func TestAKeyThatCameBackIsTriedAgain(t *testing.T) {
	compact, opt := signedBy(t, "rsa2048"), testkit.WithAnnotation(api.ResignAnnotation, "never")
	f := newExamined(t, compact, opt)
	both, one := f.cfg.Keys(), testkit.Keys("p256")
	f.setKeys(one)
	f.cache(t, secret(testkit.WithData("token", compact), opt)) // it changed while the key was away
	f.visit(t)
	f.setKeys(both)
	f.visit(t)
	found, _ := cache.Get(f.cfg.Secrets, "team/s")
	if got := f.verifiedBy(found, both); got != testkit.Keys("rsa2048").Signing().PublicKey().ID() {
		t.Errorf("verified by %q", got)
	}
}

func TestAnExamIsTheSameForKeysThatAreTheSame(t *testing.T) {
	f := newExamined(t, signedBy(t, "p384"))
	f.cfg.Keys = func() *keys.Set { return testkit.Keys("p256", "rsa2048") } // a set of its own each time
	f.reviewer.answer = tokenreview.Result{Username: "system:serviceaccount:team:robot"}
	f.visit(t)
	f.visit(t)
	if len(f.reviewer.asked) != 1 {
		t.Errorf("%d reviews", len(f.reviewer.asked))
	}
}

func TestExamsArePaced(t *testing.T) {
	f := newFixture(t, server{}, testkit.ServiceAccount("team/robot"))
	later := 0
	for i := range examsAtOnce + 10 {
		name := fmt.Sprint("s", i)
		held := secret(testkit.WithData("token", signedBy(t, "p384", func(c *token.LegacyClaims) { c.SecretName = name })))
		held.Name = name
		f.cache(t, held)
		if _, err := f.syncSecret(f.context(t), keyOf("team/"+name)); err != nil {
			t.Fatal(err)
		}
	}
	f.pass(settle)
	for i := range examsAtOnce + 10 {
		again, err := f.syncSecret(f.context(t), keyOf(fmt.Sprint("team/s", i)))
		if err != nil && !errors.Is(err, workqueue.ErrRequeueLater) {
			t.Fatal(err)
		}
		if again > 0 {
			later++
		}
	}
	if later != 10 {
		t.Errorf("%d were put off", later)
	}
}

// setKeys makes set the keys of the moment.
func (f fixture) setKeys(set *keys.Set) { f.cfg.Keys = func() *keys.Set { return set } }

func (f fixture) standingOf(cached *cache.TokenSecret) standing {
	set := f.cfg.Keys()
	return f.evidenceOf(cached, testkit.AccountUID, set).standing(set.Signing().PublicKey().ID())
}
