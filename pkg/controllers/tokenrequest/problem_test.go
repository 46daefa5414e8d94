package tokenrequest

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

const tooShort = `sakeeper.io/lifetime: "1m" is not a duration from 10m to 1193046h, such as 24h`

func (f fixture) expectProblem(t *testing.T, want string) {
	t.Helper()
	if got := f.api.secret().Annotations[api.ProblemAnnotation]; got != want {
		t.Errorf("problem %q, want %q", got, want)
	}
}

// onlyPatch is the request that changes the annotation alone.
func onlyPatch() []string { return []string{"patch secrets team/s"} }

func TestWhatIsWrongStandsOnTheSecret(t *testing.T) {
	typo := `"sakeeper.io/lifetme": there is no such annotation; did you mean sakeeper.io/lifetime?`
	cases := map[string]struct {
		in           *corev1.Secret
		inNamespace  *corev1.Namespace
		wantProblem  string
		wantRequests []string
		wantEvents   int
	}{
		"a bad setting":                           {in: managed(with("lifetime", "1m")), wantProblem: tooShort, wantRequests: onlyPatch(), wantEvents: 1},
		"a bad setting beside a token":            {in: filled(with("lifetime", "1m")), wantProblem: tooShort, wantRequests: onlyPatch(), wantEvents: 1},
		"it is there already":                     {in: managed(with("lifetime", "1m"), with("problem", tooShort))},
		"another one was":                         {in: managed(with("lifetime", "1m"), with("problem", "old")), wantProblem: tooShort, wantRequests: onlyPatch(), wantEvents: 1},
		"none any more, and the token is right":   {in: filled(with("problem", tooShort)), wantRequests: onlyPatch()},
		"none any more, and there is no token":    {in: managed(with("problem", tooShort)), wantRequests: oneToken()},
		"a setting that does not exist":           {in: managed(with("lifetme", "1h")), wantProblem: typo, wantRequests: oneToken(), wantEvents: 1},
		"that beside a right token":               {in: filled(with("lifetme", "1h")), wantProblem: typo, wantRequests: onlyPatch(), wantEvents: 1},
		"a namespace that is not served":          {in: managed(), inNamespace: testkit.Namespace("team"), wantProblem: "Namespace team does not have the label sakeeper.io/token-requests=allowed, so this Secret gets no token", wantRequests: onlyPatch(), wantEvents: 1},
		"an immutable secret":                     {in: managed(func(o metav1.Object) { o.(*corev1.Secret).Immutable = new(true) }), wantProblem: "This Secret is immutable, so no token can be written to it; delete it and create a mutable one", wantRequests: onlyPatch(), wantEvents: 1},
		"a type of Kubernetes, which is not ours": {in: managed(func(o metav1.Object) { o.(*corev1.Secret).Type = corev1.SecretTypeBasicAuth }), wantEvents: 1},
		"another value of the label":              {in: managed(testkit.WithLabel(api.TokenLabel, "true")), wantEvents: 1},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			before := tc.in.Annotations[api.ProblemAnnotation]
			if tc.inNamespace == nil {
				tc.inNamespace = served()
			}
			f := newFixture(t, tc.inNamespace, robot(), tc.in)
			for range 3 {
				f.mustSync(t)
			}
			f.expectRequests(t, tc.wantRequests...)
			if tc.wantRequests == nil {
				tc.wantProblem = before
			}
			f.expectProblem(t, tc.wantProblem)
			if events := testkit.Events(f.recorder); len(events) != tc.wantEvents {
				t.Errorf("events %q, want %d", events, tc.wantEvents)
			}
		})
	}
}

func TestAProblemIsWrittenWithPreconditions(t *testing.T) {
	f := newFixture(t, served(), robot(), managed(with("lifetime", "1m")))
	f.mustSync(t)
	want := []testkit.Request{{Verb: "patch", Resource: "secrets", Name: "team/s", Body: map[string]any{"metadata": map[string]any{
		"uid": string(testkit.SecretUID), "resourceVersion": testkit.ResourceVersion, "annotations": map[string]any{"sakeeper.io/problem": tooShort},
	}}}}
	if diff := cmp.Diff(want, f.requests()); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
	testkit.Events(f.recorder)

	// With a conflict, it is decided again.
	f.pass(maxCacheLag + time.Second)
	f.api.updateSecret(func(s *corev1.Secret) { s.Annotations[api.LifetimeAnnotation] = "2m" })
	f.cache(t, f.api.secret())
	f.api.updateSecret(func(s *corev1.Secret) { s.Annotations[api.LifetimeAnnotation] = "20m" })
	if again, err := f.syncSecret(t); again <= 0 || err != nil {
		t.Errorf("after a conflict, again in %v (%v)", again, err)
	}
	testkit.Events(f.recorder)
	f.mustSync(t)
	f.expectProblem(t, "")
}

// TestTheProblemOfAFailureIsWrittenOnce has messages of the API server that differ each time, one
// of them with a token.
func TestTheProblemOfAFailureIsWrittenOnce(t *testing.T) {
	cases := map[string]struct {
		in   *corev1.Secret
		err  func(attempt int) error
		want string
	}{
		"rejected": {
			in: managed(), want: "This Secret cannot be given a token: request a token for service account team/robot: the API server answers Forbidden",
			err: func(n int) error {
				return apierrors.NewForbidden(corev1.Resource("secrets"), "s", fmt.Errorf("used %d %s", n, secretBytes))
			},
		},
		"an outage": {
			in: filledFrom(managed(), with("rotate", "now")), want: "The token in this Secret cannot be renewed: request a token for service account team/robot: no success so far, and it is tried again",
			err: func(n int) error {
				if n%2 == 0 {
					return testkit.InternalError()
				}
				return fmt.Errorf("dial tcp 127.0.0.1:%d: connection refused", 30000+n)
			},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, served(), robot(), tc.in)
			for n := range 20 {
				f.api.configure(func(a *fakeAPIServer) { a.tokensErr = tc.err(n) })
				f.cache(t, f.api.secret())
				f.mustFail(t)
				f.pass(warnAfter)
			}
			patches := 0
			for _, request := range f.summary() {
				if request == onlyPatch()[0] {
					patches++
				}
			}
			if patches != 1 {
				t.Errorf("%d patches, want one", patches)
			}
			f.expectProblem(t, tc.want)
			testkit.Events(f.recorder) // without a work queue, each failure is one
			f.api.configure(func(a *fakeAPIServer) { a.tokensErr = nil })
			f.expectSync(t, oneToken()...)
			f.expectProblem(t, "")
		})
	}
}

// TestAProblemThatMayNotBeWritten: the role for served namespaces may be bound in these alone.
func TestAProblemThatMayNotBeWritten(t *testing.T) {
	f := newFixture(t, testkit.Namespace("team"), robot(), managed())
	f.api.configure(func(a *fakeAPIServer) { a.writesErr = testkit.QuotaExceeded() })
	for range 3 {
		f.mustSync(t)
	}
	f.expectRequests(t, onlyPatch()...)
	if events := testkit.Events(f.recorder); len(events) != 1 || !strings.HasPrefix(events[0], "Warning TokenNotServed ") {
		t.Errorf("events %q", events)
	}
	f.expectMetrics(t, map[string]int{stateUnserved: 1}, "")

	f.api.configure(func(a *fakeAPIServer) { a.writesErr = nil })
	f.cache(t, served())
	f.expectSync(t, oneToken()...)
}

func TestAProblemIsWrittenAfterAnOutage(t *testing.T) {
	f := newFixture(t, served(), robot(), managed(with("lifetime", "1m")))
	f.api.configure(func(a *fakeAPIServer) { a.writesErr = errBoom })
	f.mustFail(t)
	f.api.configure(func(a *fakeAPIServer) { a.writesErr = nil })
	f.mustSync(t)
	f.expectProblem(t, tooShort)
	if events := testkit.Events(f.recorder); len(events) != 1 {
		t.Errorf("events %q", events)
	}
}

func TestAProblemThatIsRemovedAgainAndAgainIsWrittenEverMoreSlowly(t *testing.T) {
	f := newFixture(t, served(), robot(), managed(with("lifetime", "1m")))
	requests := 0
	testkit.ExpectWriteBackoff(t, f.clock, func() int { return requests }, func() time.Duration {
		again := f.mustSync(t)
		f.api.updateSecret(func(s *corev1.Secret) { delete(s.Annotations, api.ProblemAnnotation) })
		requests += len(f.summary())
		return again
	})
	if events := testkit.Events(f.recorder); len(events) != 2 || !strings.Contains(events[1], "LeftAlone") {
		t.Errorf("events %q", events)
	}
}

// TestAProblemIsWrittenOnceWhileItRuns: the event of the write causes no other, nor does a restart,
// and a token that is due is renewed beside it.
func TestAProblemIsWrittenOnceWhileItRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRunningController(t, served(), robot(), managed(with("lifetime", "1m")))
		r.start()
		time.Sleep(time.Hour)
		r.expectRequests("a bad setting", onlyPatch()...)
		r.stop()
		r.start()
		time.Sleep(time.Hour)
		r.expectRequests("a restart")
		if events := testkit.Events(r.recorder); len(events) != 1 {
			t.Errorf("events %q", events)
		}
		r.updateSecret(func(s *corev1.Secret) {
			s.Annotations[api.LifetimeAnnotation], s.Annotations["sakeeper.io/lifetme"] = "1h", "1h"
		})
		r.expectRequests("another mistake", oneToken()...)
		time.Sleep(49 * time.Minute)
		r.expectRequests("due", oneToken()...)
		r.updateSecret(func(s *corev1.Secret) { delete(s.Annotations, "sakeeper.io/lifetme") })
		r.expectRequests("right", onlyPatch()...)
		if problem, ok := r.secret().Annotations[api.ProblemAnnotation]; ok {
			t.Errorf("problem %q", problem)
		}
		r.stop()
	})
}

// TestAProblemOfManySecretsIsWrittenAtABoundedRate: a namespace may lose its label.
func TestAProblemOfManySecretsIsWrittenAtABoundedRate(t *testing.T) {
	f := newFixture(t, testkit.Namespace("team"), robot(), managed())
	f.exhaustLimiter("others")
	if again := f.mustSync(t); again < time.Second || again > 2*time.Second || len(f.requests()) > 0 {
		t.Errorf("again after %v", again)
	}
	f.pass(2 * time.Second)
	f.expectSync(t, onlyPatch()...)
	testkit.Events(f.recorder)
}
