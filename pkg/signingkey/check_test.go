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

// fixture is a Check with a fake API server that accepts some keys, and with writes of tokens
// that retry when they are woken.
type fixture struct {
	t     *testing.T
	check *Check

	client   *fake.Clientset
	recorder *record.FakeRecorder
	stop     func()

	mu       sync.Mutex
	set      *keys.Set
	signErr  error
	writeErr error
	// signDelays are by name of the Secret, to be set before want.
	signDelays map[string]time.Duration
	// accepts are the ids of keys that the API server accepts; reviewErr is the error of
	// reviews.
	accepts   map[string]bool
	reviewErr error
	reviews   int
	signings  int
	written   []string // names of Secrets, in order
	wakes     int
}

func newFixture(t *testing.T, accepts ...string) *fixture {
	t.Helper()
	f := &fixture{t: t, set: testkit.Keys("p256"), accepts: map[string]bool{}, client: fake.NewClientset(), recorder: record.NewFakeRecorder(10)}
	for _, name := range accepts {
		f.accepts[idOf(name)] = true
	}
	var err error
	f.check, err = New(Config{
		Signer: f, TokenReviews: f.client.AuthenticationV1().TokenReviews(), Secrets: f.client.CoreV1(), Recorder: f.recorder, Clock: clock.RealClock{},
	})
	if err != nil {
		t.Fatal(err)
	}
	f.check.reviewer = f
	f.stop = testkit.Start(t.Context(), t, f.check.Run)
	return f
}

func idOf(key string) string { return testkit.Keys(key).Signing().PublicKey().ID() }

// SignLegacy implements Signer.
func (f *fixture) SignLegacy(ctx context.Context, claims token.LegacyClaims) (string, error) {
	f.mu.Lock()
	set, err := f.set, f.signErr
	f.signings++
	f.mu.Unlock()
	time.Sleep(f.signDelays[claims.SecretName])
	if err != nil {
		return "", err
	}
	return token.NewSigner(func() *keys.Set { return set }).SignLegacy(ctx, claims)
}

// Review implements tokenReviewer.
func (f *fixture) Review(_ context.Context, compact string) (tokenreview.Result, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reviews++
	switch {
	case f.reviewErr != nil:
		return tokenreview.Result{}, f.reviewErr
	case f.accepts[token.UnverifiedKeyID(compact)]:
		return tokenreview.Result{Username: "system:serviceaccount:team:robot"}, nil
	default:
		return tokenreview.Result{Reason: "unknown key"}, nil
	}
}

// want writes a token to the Secret name, and retries when it is woken.
func (f *fixture) want(name string) {
	claims := token.LegacyClaims{Namespace: "team", SecretName: name, ServiceAccountName: "robot", ServiceAccountUID: string(testkit.AccountUID)}
	err := f.check.Write(f.t.Context(), claims, func() {
		f.mu.Lock()
		f.wakes++
		f.mu.Unlock()
		go f.want(name)
	}, func(ctx context.Context, compact string) error {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.writeErr != nil {
			return f.writeErr
		}
		f.written = append(f.written, name)
		secret := testkit.Secret("team/"+name, testkit.WithData("token", compact), testkit.WithData("other", "kept"))
		if _, err := f.client.CoreV1().Secrets("team").Create(ctx, secret, metav1.CreateOptions{}); err == nil {
			return nil
		}
		_, err := f.client.CoreV1().Secrets("team").Update(ctx, secret, metav1.UpdateOptions{})
		return err
	})
	if err != nil && !errors.Is(err, ErrWaiting) && !errors.Is(err, errBoom) && !errors.Is(err, f.writeErr) {
		f.t.Errorf("write %s: %v", name, err)
	}
}

// change calls do under the lock, and then waits for d.
func (f *fixture) change(d time.Duration, do func()) {
	f.mu.Lock()
	do()
	f.mu.Unlock()
	wait(d)
}

// useKey changes the signing key.
func (f *fixture) useKey(name string) {
	f.change(0, func() { f.set = testkit.Keys(name) })
	f.check.Reset()
	synctest.Wait()
}

// expectWritten compares the Secrets that were written, in any order.
func (f *fixture) expectWritten(want ...string) {
	f.t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if diff := cmp.Diff(slices.Sorted(slices.Values(want)), slices.Sorted(slices.Values(f.written))); diff != "" {
		f.t.Errorf("written (-want +got):\n%s", diff)
	}
}

func (f *fixture) expectNotReady(want string) {
	f.t.Helper()
	if err := f.check.Ready(); err == nil || !strings.Contains(err.Error(), want) {
		f.t.Errorf("ready: %v, want %q", err, want)
	}
}

func (f *fixture) expectReady() {
	f.t.Helper()
	if err := f.check.Ready(); err != nil {
		f.t.Errorf("not ready: %v", err)
	}
}

// wait advances the time by d, and waits until all goroutines are blocked.
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

// run calls do with a new fixture, in the fake time of synctest.
func run(t *testing.T, accepts []string, do func(f *fixture)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, accepts...)
		defer func() {
			f.stop()
			synctest.Wait()
		}()
		do(f)
	})
}

func TestOthersWaitUntilTheFirstTokenIsAccepted(t *testing.T) {
	run(t, nil, func(f *fixture) {
		f.want("first")
		for _, name := range names(40) {
			f.want(name)
		}
		wait(3 * time.Second)
		f.expectWritten("first")
		f.expectNotReady("no tokens are written until the API server has accepted one of signing key " + idOf("p256") + ": unknown key")

		f.change(10*time.Second, func() { f.accepts[idOf("p256")] = true })
		f.expectWritten(append(names(40), "first")...)
		f.expectReady()
		if f.wakes != 40 {
			t.Errorf("%d woken, want 40", f.wakes)
		}
		reviews := f.reviews
		f.want("later")
		wait(time.Minute)
		if f.reviews != reviews {
			t.Errorf("an accepted key was reviewed again")
		}
	})
}

func TestAnAcceptedKeyCostsOneReview(t *testing.T) {
	run(t, []string{"p256"}, func(f *fixture) {
		f.expectReady() // before any write
		for _, name := range names(10) {
			f.want(name)
		}
		wait(0)
		f.expectWritten(names(10)...)
		if f.reviews != 1 {
			t.Errorf("%d reviews", f.reviews)
		}
	})
}

func TestARefusedKeyIsReportedAndItsTokenRemovedWhenItIsReplaced(t *testing.T) {
	run(t, []string{"rsa2048"}, func(f *fixture) {
		f.want("first")
		f.want("second")
		wait(55 * time.Second)
		f.expectNotReady("until the API server has accepted") // not refused yet
		if events := testkit.Events(f.recorder); len(events) > 0 {
			t.Errorf("events %v", events)
		}
		wait(time.Hour)
		f.expectWritten("first")
		f.expectNotReady("no tokens are written: the API server refuses signing key " + idOf("p256") + ": unknown key")
		want := []string{"Warning SigningKeyRefused The API server refuses the token in this secret, signed by key " + idOf("p256") + ": unknown key. No other tokens are written. " +
			"Add the public key to --service-account-key-file of the API server, or give the controllers a key that it accepts"}
		if diff := cmp.Diff(want, testkit.Events(f.recorder)); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
		if f.reviews > 140 { // one each 30 s, and a dozen more at first
			t.Errorf("%d reviews in an hour", f.reviews)
		}

		f.useKey("rsa2048")
		f.expectWritten("first", "second")
		f.expectReady()
		first := f.mustGetFirst()
		if _, ok := first.Data["token"]; ok || string(first.Data["other"]) != "kept" {
			t.Errorf("not only the refused token was removed: %v", first.Data)
		}
	})
}

// mustGetFirst returns the Secret "first".
func (f *fixture) mustGetFirst() *corev1.Secret {
	f.t.Helper()
	secret, err := f.client.CoreV1().Secrets("team").Get(f.t.Context(), "first", metav1.GetOptions{})
	if err != nil {
		f.t.Fatal(err)
	}
	return secret
}

func TestTokensAreWrittenWhenARefusedKeyIsAcceptedLater(t *testing.T) {
	run(t, nil, func(f *fixture) {
		f.want("first")
		f.want("second")
		wait(2 * time.Minute)
		f.expectNotReady("refuses")
		f.change(maxReviewDelay, func() { f.accepts[idOf("p256")] = true })
		f.expectWritten("first", "second")
		f.expectReady()
	})
}

func TestAFailedReviewIsNeitherAcceptanceNorRefusal(t *testing.T) {
	run(t, []string{"p256"}, func(f *fixture) {
		f.reviewErr = errBoom
		f.want("first")
		f.want("second")
		wait(time.Hour)
		f.expectWritten("first")
		f.expectNotReady("until the API server has accepted one of signing key " + idOf("p256") + ": boom")
		if events := testkit.Events(f.recorder); len(events) > 0 {
			t.Errorf("events %v", events)
		}
		f.change(maxReviewDelay, func() { f.reviewErr = nil })
		f.expectWritten("first", "second")
		f.expectReady()
	})
}

func TestAFirstTokenWhoseSecretWasChangedIsReplaced(t *testing.T) {
	changes := map[string]func(*corev1.Secret){
		"another token":    func(s *corev1.Secret) { s.Data["token"] = []byte("mine") },
		"no token":         func(s *corev1.Secret) { delete(s.Data, "token") },
		"marked as unused": func(s *corev1.Secret) { s.Labels = map[string]string{token.InvalidSinceLabel: "2026-01-02"} },
		"being deleted":    func(s *corev1.Secret) { s.DeletionTimestamp = &metav1.Time{Time: testkit.Instant()} },
	}
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			run(t, nil, func(f *fixture) {
				f.want("first")
				f.want("second")
				wait(10 * time.Second)
				secret := f.mustGetFirst()
				change(secret)
				_, err := f.client.CoreV1().Secrets("team").Update(t.Context(), secret, metav1.UpdateOptions{})
				if err != nil {
					t.Fatal(err)
				}
				wait(maxReviewDelay)
				f.expectWritten("first", "second")
				f.useKey("rsa2048")
				if got := f.mustGetFirst(); string(got.Data["token"]) != string(secret.Data["token"]) {
					t.Error("the change of another client was reverted")
				}
			})
		})
	}
	t.Run("deleted", func(t *testing.T) {
		run(t, nil, func(f *fixture) {
			f.want("first")
			f.want("second")
			if err := f.client.CoreV1().Secrets("team").Delete(t.Context(), "first", metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
			wait(maxReviewDelay)
			f.expectWritten("first", "second")
		})
	})
}

func TestAFirstTokenThatWasCertainlyNotWrittenIsReplaced(t *testing.T) {
	for name, answer := range map[string]error{"conflict": testkit.Conflict(), "gone": testkit.NotFound(), "refused": testkit.Invalid("data", "x")} {
		t.Run(name, func(t *testing.T) {
			run(t, []string{"p256"}, func(f *fixture) {
				f.writeErr = answer
				f.want("first")
				f.change(0, func() { f.writeErr = nil })
				f.want("second")
				wait(0)
				f.expectWritten("second")
				f.expectReady()
			})
		})
	}
	t.Run("one that may have been written is reviewed", func(t *testing.T) {
		run(t, []string{"p256"}, func(f *fixture) {
			f.writeErr = testkit.InternalError()
			f.reviewErr = errBoom
			f.want("first")
			f.change(time.Second, func() { f.writeErr = nil })
			f.want("second")
			wait(time.Minute)
			f.expectWritten()
			f.change(maxReviewDelay, func() { f.reviewErr = nil })
			f.expectWritten("second")
		})
	})
}

func TestAttemptsAreLimitedWhileSigningFails(t *testing.T) {
	run(t, []string{"p256"}, func(f *fixture) {
		f.signErr = errBoom
		for _, name := range names(200) {
			f.want(name)
		}
		wait(time.Minute)
		f.expectNotReady("no tokens are written: boom")
		if f.signings > 61*wakeBatch {
			t.Errorf("%d attempts in a minute", f.signings)
		}
		signings := f.signings
		f.change(2*time.Second, func() { f.signErr = nil })
		if f.signings == signings && len(f.check.waiting) > 0 {
			t.Error("signing was not retried")
		}
		f.expectReady()
		if len(f.check.waiting) > 0 {
			t.Errorf("%d still wait", len(f.check.waiting))
		}
	})
}

func TestNoWriteWaitsWhenSigningWithAnAcceptedKeyWorksAgain(t *testing.T) {
	run(t, []string{"p256"}, func(f *fixture) {
		f.want("first")
		wait(time.Second)
		f.change(0, func() { f.signErr = errBoom })
		for _, name := range names(200) {
			f.want(name)
		}
		wait(10 * time.Second)
		f.change(3*time.Second, func() { f.signErr = nil })
		if len(f.check.waiting) > 0 {
			t.Errorf("%d still wait", len(f.check.waiting))
		}
		f.expectReady()
	})
}

func TestAllWaitingWritesAreWokenAfterOverlappingSignErrors(t *testing.T) {
	run(t, []string{"p256"}, func(f *fixture) {
		f.want("first")
		wait(time.Second)
		f.signDelays = map[string]time.Duration{"late": 2 * time.Millisecond}
		f.change(0, func() { f.signErr = errBoom })
		go f.want("late") // begins before the other fails, and fails after it
		synctest.Wait()
		f.want("early")
		wait(500 * time.Millisecond)
		for _, name := range names(5) {
			f.want(name)
		}
		f.change(5*time.Second, func() { f.signErr = nil })
		f.expectWritten(append(names(5), "first")...)
	})
}

func TestAFirstTokenOfAFormerKeyIsRemovedUnlessItIsAccepted(t *testing.T) {
	cases := map[string]struct {
		inAccepted bool
		want       bool // the token stays
	}{
		"refused, and replaced before a minute was over": {want: false},
		"accepted later": {inAccepted: true, want: true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			run(t, []string{"rsa2048"}, func(f *fixture) {
				f.want("first")
				f.want("second")
				wait(10 * time.Second)
				f.change(0, func() { f.accepts[idOf("p256")] = tc.inAccepted })
				f.useKey("rsa2048")
				f.expectWritten("first", "second")
				if _, got := f.mustGetFirst().Data["token"]; got != tc.want {
					t.Errorf("the token is there: %t", got)
				}
				f.expectReady()
			})
		})
	}
}

func TestAnOldSignErrorIsForgotten(t *testing.T) {
	run(t, []string{"p256"}, func(f *fixture) {
		f.signErr = errBoom
		f.want("first")
		wait(signErrorAge)
		f.expectNotReady("boom")
		wait(2 * time.Second)
		f.expectReady()
	})
}

func TestTheKeyThatSignsCounts(t *testing.T) {
	run(t, []string{"p256"}, func(f *fixture) {
		f.want("first")
		wait(0)
		// The signer has the new key before Reset: its next token is the first one.
		f.change(0, func() { f.set = testkit.Keys("rsa2048") })
		f.want("second")
		f.want("third")
		wait(time.Minute)
		f.expectWritten("first", "second")
		f.expectNotReady(idOf("rsa2048"))
		f.change(maxReviewDelay, func() { f.accepts[idOf("rsa2048")] = true })
		f.expectWritten("first", "second", "third")
	})
}

func TestAPanicInAWriteLetsOthersTry(t *testing.T) {
	run(t, []string{"p256"}, func(f *fixture) {
		func() {
			defer func() { _ = recover() }()
			claims := token.LegacyClaims{Namespace: "team", SecretName: "bad", ServiceAccountName: "robot", ServiceAccountUID: "1"}
			_ = f.check.Write(t.Context(), claims, func() {}, func(context.Context, string) error { panic(errBoom) })
		}()
		f.want("first")
		wait(0)
		f.expectWritten("first")
	})
}

func TestNewRefusesAnIncompleteConfig(t *testing.T) {
	if _, err := New(Config{}); err == nil {
		t.Error("no error")
	}
}
