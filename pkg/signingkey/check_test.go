package signingkey

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/internal/tokenreview"
	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/token"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errBoom = errors.New("boom")

// world is a gate, an API server that has opinions of keys, and writers that want
// their Secret filled and try again when they are woken.
type world struct {
	t    *testing.T
	gate *Check

	client   *fake.Clientset
	recorder *record.FakeRecorder
	stop     func()

	mu       sync.Mutex
	set      *keys.Set
	signErr  error
	writeErr error
	// signDelays are by Secret; set before it wants a token.
	signDelays map[string]time.Duration
	// accepts are the ids of keys that the API server takes; reviewErr is its answer
	// where it has none.
	accepts   map[string]bool
	reviewErr error
	reviews   int
	signings  int
	written   []string // names of Secrets, in order
	wakes     int
}

func newWorld(t *testing.T, accepts ...string) *world {
	t.Helper()
	w := &world{t: t, set: testkit.Keys("p256"), accepts: map[string]bool{}, client: fake.NewClientset(), recorder: record.NewFakeRecorder(10)}
	for _, name := range accepts {
		w.accepts[idOf(name)] = true
	}
	var err error
	w.gate, err = New(Config{
		Signer: w, TokenReviews: w.client.AuthenticationV1().TokenReviews(), Secrets: w.client.CoreV1(), Recorder: w.recorder, Clock: clock.RealClock{},
	})
	if err != nil {
		t.Fatal(err)
	}
	w.gate.reviewer = w
	w.stop = testkit.Start(t.Context(), t, w.gate.Run)
	return w
}

func idOf(key string) string { return testkit.Keys(key).Signing().PublicKey().ID() }

// SignLegacy implements Signer.
func (w *world) SignLegacy(ctx context.Context, claims token.LegacyClaims) (string, error) {
	w.mu.Lock()
	set, err := w.set, w.signErr
	w.signings++
	w.mu.Unlock()
	time.Sleep(w.signDelays[claims.SecretName])
	if err != nil {
		return "", err
	}
	return token.NewSigner(func() *keys.Set { return set }).SignLegacy(ctx, claims)
}

// Ask implements tokenReviewer.
func (w *world) Review(_ context.Context, compact string) (tokenreview.Result, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reviews++
	switch {
	case w.reviewErr != nil:
		return tokenreview.Result{}, w.reviewErr
	case w.accepts[token.UnverifiedKeyID(compact)]:
		return tokenreview.Result{Username: "system:serviceaccount:team:robot"}, nil
	default:
		return tokenreview.Result{Reason: "unknown key"}, nil
	}
}

// want makes the Secret of that name want a token, until it has one.
func (w *world) want(name string) {
	claims := token.LegacyClaims{Namespace: "team", SecretName: name, ServiceAccountName: "robot", ServiceAccountUID: string(testkit.AccountUID)}
	err := w.gate.Write(w.t.Context(), claims, func() {
		w.mu.Lock()
		w.wakes++
		w.mu.Unlock()
		go w.want(name)
	}, func(ctx context.Context, compact string) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.writeErr != nil {
			return w.writeErr
		}
		w.written = append(w.written, name)
		secret := testkit.Secret("team/"+name, testkit.WithData("token", compact), testkit.WithData("other", "kept"))
		if _, err := w.client.CoreV1().Secrets("team").Create(ctx, secret, metav1.CreateOptions{}); err == nil {
			return nil
		}
		_, err := w.client.CoreV1().Secrets("team").Update(ctx, secret, metav1.UpdateOptions{})
		return err
	})
	if err != nil && !errors.Is(err, ErrWaiting) && !errors.Is(err, errBoom) && !errors.Is(err, w.writeErr) {
		w.t.Errorf("write %s: %v", name, err)
	}
}

// change does f with the world at rest, and then lets d pass.
func (w *world) change(d time.Duration, f func()) {
	w.mu.Lock()
	f()
	w.mu.Unlock()
	wait(d)
}

// useKey makes the key of that name the one that signs.
func (w *world) useKey(name string) {
	w.change(0, func() { w.set = testkit.Keys(name) })
	w.gate.Reset()
	synctest.Wait()
}

// expectWritten compares the Secrets that were written, in whatever order.
func (w *world) expectWritten(want ...string) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if diff := cmp.Diff(slices.Sorted(slices.Values(want)), slices.Sorted(slices.Values(w.written))); diff != "" {
		w.t.Errorf("written (-want +got):\n%s", diff)
	}
}

func (w *world) expectNotReady(want string) {
	w.t.Helper()
	if err := w.gate.Ready(); err == nil || !strings.Contains(err.Error(), want) {
		w.t.Errorf("ready: %v, want %q", err, want)
	}
}

func (w *world) expectReady() {
	w.t.Helper()
	if err := w.gate.Ready(); err != nil {
		w.t.Errorf("not ready: %v", err)
	}
}

// wait lets time pass, and then everything happen that is due by now.
func wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func names(n int) []string {
	var list []string
	for i := range n {
		list = append(list, fmt.Sprint("s", i))
	}
	return list
}

// run does f in a world of its own, in virtual time.
func run(t *testing.T, accepts []string, f func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, accepts...)
		defer func() {
			w.stop()
			synctest.Wait()
		}()
		f(w)
	})
}

func TestOthersWaitUntilTheCanaryIsAccepted(t *testing.T) {
	run(t, nil, func(w *world) {
		w.want("first")
		for _, name := range names(40) {
			w.want(name)
		}
		wait(3 * time.Second)
		w.expectWritten("first")
		w.expectNotReady("no tokens are written until the API server has accepted one of signing key " + idOf("p256") + ": unknown key")

		w.change(10*time.Second, func() { w.accepts[idOf("p256")] = true })
		w.expectWritten(append(names(40), "first")...)
		w.expectReady()
		if w.wakes != 40 {
			t.Errorf("%d woken, want 40", w.wakes)
		}
		reviews := w.reviews
		w.want("later")
		wait(time.Minute)
		if w.reviews != reviews {
			t.Errorf("an accepted key was asked about again")
		}
	})
}

func TestAnAcceptedKeyCostsOneReview(t *testing.T) {
	run(t, []string{"p256"}, func(w *world) {
		w.expectReady() // nobody wants a token
		for _, name := range names(10) {
			w.want(name)
		}
		wait(0)
		w.expectWritten(names(10)...)
		if w.reviews != 1 {
			t.Errorf("%d reviews", w.reviews)
		}
	})
}

func TestARefusedKeyIsNamedAndTakenBackWhenItIsReplaced(t *testing.T) {
	run(t, []string{"rsa2048"}, func(w *world) {
		w.want("first")
		w.want("second")
		wait(55 * time.Second)
		w.expectNotReady("until the API server has accepted") // not refused yet
		if events := testkit.Events(w.recorder); len(events) > 0 {
			t.Errorf("events %v", events)
		}
		wait(time.Hour)
		w.expectWritten("first")
		w.expectNotReady("no tokens are written: the API server refuses signing key " + idOf("p256") + ": unknown key")
		want := []string{"Warning SigningKeyRefused The API server refuses the token in this secret, signed by key " + idOf("p256") + ": unknown key. No other tokens are written. " +
			"Give the API server the key (--service-account-key-file), or the controllers one that it has"}
		if diff := cmp.Diff(want, testkit.Events(w.recorder)); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
		if w.reviews > 140 { // one each 30 s, and a dozen more at first
			t.Errorf("%d reviews in an hour", w.reviews)
		}

		w.useKey("rsa2048")
		w.expectWritten("first", "second")
		w.expectReady()
		first := w.mustGetFirst()
		if _, ok := first.Data["token"]; ok || string(first.Data["other"]) != "kept" {
			t.Errorf("the refused token was not taken back, or more than that: %v", first.Data)
		}
	})
}

// mustGetFirst is the Secret "first".
func (w *world) mustGetFirst() *corev1.Secret {
	w.t.Helper()
	secret, err := w.client.CoreV1().Secrets("team").Get(w.t.Context(), "first", metav1.GetOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	return secret
}

func TestARefusedKeyThatIsAcceptedAfterAllGoesOn(t *testing.T) {
	run(t, nil, func(w *world) {
		w.want("first")
		w.want("second")
		wait(2 * time.Minute)
		w.expectNotReady("refuses")
		w.change(late, func() { w.accepts[idOf("p256")] = true })
		w.expectWritten("first", "second")
		w.expectReady()
	})
}

func TestNoAnswerIsNeitherYesNorNo(t *testing.T) {
	run(t, []string{"p256"}, func(w *world) {
		w.reviewErr = errBoom
		w.want("first")
		w.want("second")
		wait(time.Hour)
		w.expectWritten("first")
		w.expectNotReady("until the API server has accepted one of signing key " + idOf("p256") + ": boom")
		if events := testkit.Events(w.recorder); len(events) > 0 {
			t.Errorf("events %v", events)
		}
		w.change(late, func() { w.reviewErr = nil })
		w.expectWritten("first", "second")
		w.expectReady()
	})
}

func TestACanaryThatSomebodyChangedIsReplaced(t *testing.T) {
	changes := map[string]func(*corev1.Secret){
		"another token":    func(s *corev1.Secret) { s.Data["token"] = []byte("mine") },
		"no token":         func(s *corev1.Secret) { delete(s.Data, "token") },
		"marked as unused": func(s *corev1.Secret) { s.Labels = map[string]string{token.InvalidSinceLabel: "2026-01-02"} },
		"being deleted":    func(s *corev1.Secret) { s.DeletionTimestamp = &metav1.Time{Time: testkit.Instant()} },
	}
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			run(t, nil, func(w *world) {
				w.want("first")
				w.want("second")
				wait(10 * time.Second)
				secret := w.mustGetFirst()
				change(secret)
				_, err := w.client.CoreV1().Secrets("team").Update(t.Context(), secret, metav1.UpdateOptions{})
				if err != nil {
					t.Fatal(err)
				}
				wait(late)
				w.expectWritten("first", "second")
				w.useKey("rsa2048")
				if got := w.mustGetFirst(); string(got.Data["token"]) != string(secret.Data["token"]) {
					t.Error("somebody's change was undone")
				}
			})
		})
	}
	t.Run("deleted", func(t *testing.T) {
		run(t, nil, func(w *world) {
			w.want("first")
			w.want("second")
			if err := w.client.CoreV1().Secrets("team").Delete(t.Context(), "first", metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
			wait(late)
			w.expectWritten("first", "second")
		})
	})
}

func TestACanaryThatWasCertainlyNotWrittenIsReplaced(t *testing.T) {
	for name, answer := range map[string]error{"conflict": testkit.Conflict(), "gone": testkit.NotFound(), "refused": testkit.Invalid("data", "x")} {
		t.Run(name, func(t *testing.T) {
			run(t, []string{"p256"}, func(w *world) {
				w.writeErr = answer
				w.want("first")
				w.change(0, func() { w.writeErr = nil })
				w.want("second")
				wait(0)
				w.expectWritten("second")
				w.expectReady()
			})
		})
	}
	t.Run("but one that may have been written is asked about", func(t *testing.T) {
		run(t, []string{"p256"}, func(w *world) {
			w.writeErr = testkit.InternalError()
			w.reviewErr = errBoom
			w.want("first")
			w.change(time.Second, func() { w.writeErr = nil })
			w.want("second")
			wait(time.Minute)
			w.expectWritten()
			w.change(late, func() { w.reviewErr = nil })
			w.expectWritten("second")
		})
	})
}

func TestWhileSigningFailsAFewTryInASecond(t *testing.T) {
	run(t, []string{"p256"}, func(w *world) {
		w.signErr = errBoom
		for _, name := range names(200) {
			w.want(name)
		}
		wait(time.Minute)
		w.expectNotReady("no tokens are written: boom")
		if w.signings > 61*few {
			t.Errorf("%d attempts in a minute", w.signings)
		}
		signings := w.signings
		w.change(2*time.Second, func() { w.signErr = nil })
		if w.signings == signings && len(w.gate.waiting) > 0 {
			t.Error("nobody tried again")
		}
		w.expectReady()
		if len(w.gate.waiting) > 0 {
			t.Errorf("%d still wait", len(w.gate.waiting))
		}
	})
}

func TestWhenSigningWorksAgainOfAnAcceptedKeyNobodyWaits(t *testing.T) {
	run(t, []string{"p256"}, func(w *world) {
		w.want("first")
		wait(time.Second)
		w.change(0, func() { w.signErr = errBoom })
		for _, name := range names(200) {
			w.want(name)
		}
		wait(10 * time.Second)
		w.change(3*time.Second, func() { w.signErr = nil })
		if len(w.gate.waiting) > 0 {
			t.Errorf("%d still wait", len(w.gate.waiting))
		}
		w.expectReady()
	})
}

func TestFailuresAtSeveralMomentsLeaveNobodyBehind(t *testing.T) {
	run(t, []string{"p256"}, func(w *world) {
		w.want("first")
		wait(time.Second)
		w.signDelays = map[string]time.Duration{"late": 2 * time.Millisecond}
		w.change(0, func() { w.signErr = errBoom })
		go w.want("late") // begins before the other fails, and fails after it
		synctest.Wait()
		w.want("early")
		wait(500 * time.Millisecond)
		for _, name := range names(5) {
			w.want(name)
		}
		w.change(5*time.Second, func() { w.signErr = nil })
		w.expectWritten(append(names(5), "first")...)
	})
}

func TestACanaryOfAFormerKeyIsTakenBackUnlessItIsAccepted(t *testing.T) {
	cases := map[string]struct {
		inAccepted bool
		want       bool // the token stays
	}{
		"refused, and replaced before a minute was over": {want: false},
		"accepted in the end":                            {inAccepted: true, want: true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			run(t, []string{"rsa2048"}, func(w *world) {
				w.want("first")
				w.want("second")
				wait(10 * time.Second)
				w.change(0, func() { w.accepts[idOf("p256")] = tc.inAccepted })
				w.useKey("rsa2048")
				w.expectWritten("first", "second")
				if _, got := w.mustGetFirst().Data["token"]; got != tc.want {
					t.Errorf("the token is there: %t", got)
				}
				w.expectReady()
			})
		})
	}
}

func TestAFailureToSignThatNobodyRepeatsIsForgotten(t *testing.T) {
	run(t, []string{"p256"}, func(w *world) {
		w.signErr = errBoom
		w.want("first")
		wait(stale)
		w.expectNotReady("boom")
		wait(2 * time.Second)
		w.expectReady()
	})
}

func TestTheKeyThatSignsCounts(t *testing.T) {
	run(t, []string{"p256"}, func(w *world) {
		w.want("first")
		wait(0)
		// The signer is ahead of Reset: its first token is the next canary.
		w.change(0, func() { w.set = testkit.Keys("rsa2048") })
		w.want("second")
		w.want("third")
		wait(time.Minute)
		w.expectWritten("first", "second")
		w.expectNotReady(idOf("rsa2048"))
		w.change(late, func() { w.accepts[idOf("rsa2048")] = true })
		w.expectWritten("first", "second", "third")
	})
}

func TestAPanicInAWriteLetsOthersTry(t *testing.T) {
	run(t, []string{"p256"}, func(w *world) {
		func() {
			defer func() { _ = recover() }()
			claims := token.LegacyClaims{Namespace: "team", SecretName: "bad", ServiceAccountName: "robot", ServiceAccountUID: "1"}
			_ = w.gate.Write(t.Context(), claims, func() {}, func(context.Context, string) error { panic(errBoom) })
		}()
		w.want("first")
		wait(0)
		w.expectWritten("first")
	})
}

func TestNewRefusesAnIncompleteConfig(t *testing.T) {
	if _, err := New(Config{}); err == nil {
		t.Error("no error")
	}
}
