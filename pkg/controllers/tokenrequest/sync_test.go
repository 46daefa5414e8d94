package tokenrequest

import (
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/internal/workqueue"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

var errBoom = errors.New("boom")

func oneToken() []string {
	return []string{"create serviceaccounts/token team/robot", "patch secrets team/s"}
}

func TestARenewalIsTwoRequests(t *testing.T) {
	f := newFixture(t, served(), robot(), managed(with("audiences", "a,b"), with("lifetime", "2h"), with("rotate", "now"),
		with("filled-keys", "old,token"), testkit.WithData("old", "x")))
	f.mustDo(t)
	lifetime := int64(7200)
	encoded := func(data []byte) string { return base64.StdEncoding.EncodeToString(data) }
	secret := f.api.secret()
	want := []testkit.Request{
		{Verb: "create", Resource: "serviceaccounts/token", Name: "team/robot", Body: &authenticationv1.TokenRequest{
			ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: "robot", UID: testkit.AccountUID},
			Spec: authenticationv1.TokenRequestSpec{
				Audiences: []string{"a", "b"}, ExpirationSeconds: &lifetime,
				BoundObjectRef: &authenticationv1.BoundObjectReference{Kind: "Secret", APIVersion: "v1", Name: "s", UID: testkit.SecretUID},
			},
		}},
		{Verb: "patch", Resource: "secrets", Name: "team/s", Body: map[string]any{
			"metadata": map[string]any{
				"uid": string(testkit.SecretUID), "resourceVersion": testkit.ResourceVersion,
				"annotations": map[string]any{
					"sakeeper.io/issued-at": "2026-01-02T04:04:05Z", "sakeeper.io/expires-at": "2026-01-02T06:04:05Z", "sakeeper.io/credential-id": "JTI=1",
					"sakeeper.io/rotated": "now", "sakeeper.io/filled-for": "robot", "sakeeper.io/filled-keys": "ca.crt,namespace,token", "sakeeper.io/filled-hash": secret.Annotations[api.FilledHashAnnotation],
				},
			},
			"data": map[string]any{
				"token": encoded(secret.Data["token"]), "ca.crt": encoded(testkit.Bundle().PEM()), "namespace": encoded([]byte("team")), "old": nil,
			},
		}},
	}
	if diff := cmp.Diff(want, f.requests()); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
	if !strings.HasPrefix(string(secret.Data["token"]), secretBytes) || string(secret.Data["mine"]) != "yes" {
		t.Error("no token, or not what is the user's")
	}
	if again := f.mustDo(t); again <= 0 {
		t.Error("it is not looked at again")
	}
	if got := f.summary(); len(got) > 0 {
		t.Errorf("a second time: %v", got)
	}
}

func TestNothingIsWrittenToWhatIsRight(t *testing.T) {
	for name, secret := range map[string]*corev1.Secret{
		"token":      filled(),
		"kubeconfig": filledFrom(managed(with("format", "kubeconfig"))),
		"Argo CD":    filledFrom(managed(with("format", "argocd-cluster"), with("server", "https://other"))),
		"custom":     filledFrom(managed(with("format", "custom"), with("token-key", "k"))),
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, served(), robot(), secret)
			if again := f.mustDo(t); again <= 0 || len(f.requests()) > 0 {
				t.Errorf("looks again in %v", again)
			}
		})
	}
}

func TestNoSecondTokenWhileTheCacheLags(t *testing.T) {
	f := newFixture(t, served(), robot(), managed())
	f.mustDo(t)
	if again, err := f.do(t); again != lookAgain || err != nil {
		t.Errorf("looks again in %v (%v)", again, err)
	}
	if diff := cmp.Diff(oneToken(), f.summary()); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
	f.pass(staleAtMost + time.Second)                                  // as after a restore of etcd, whose versions are older
	if _, err := f.do(t); !errors.Is(err, workqueue.ErrRequeueLater) { // here the cache was behind
		t.Error(err)
	}
	if diff := cmp.Diff(oneToken(), f.summary()); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

// TestConflictsWithoutEndCostFewTokens: a webhook may answer with one for ever, without
// an event, or somebody is always faster.
func TestConflictsWithoutEndCostFewTokens(t *testing.T) {
	for name, changes := range map[string]bool{"nothing changes": false, "it changes each time": true} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, served(), robot(), managed())
			f.api.change(func(a *apiServer) { a.writesErr = testkit.Conflict() })
			const minutes = 10
			for i := range minutes * 60 {
				if changes {
					if err := f.api.set(func(s *corev1.Secret) { s.Data["mine"] = fmt.Append(nil, i) }); err != nil {
						t.Fatal(err)
					}
					f.cache(t, f.api.secret())
				}
				_, _ = f.do(t)
				f.pass(time.Second)
			}
			if got := len(f.summary()) / 2; got < minutes || got > 2*minutes+6 {
				t.Errorf("%d tokens in %d minutes", got, minutes)
			}
			want := []string{`Warning FailedTokenRenewal The token here cannot be renewed: write secret team/s: ` + testkit.Conflict().Error()}
			if diff := cmp.Diff(want, testkit.Events(f.recorder)[:1]); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
			f.api.change(func(a *apiServer) { a.writesErr = nil })
			f.requests()
			f.pass(retryOutage)
			f.mustDo(t)
			if diff := cmp.Diff(oneToken(), f.summary()); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
		})
	}
}

// TestNothingIsRememberedOfASecretThatWentMeanwhile: its event came before the answer.
func TestNothingIsRememberedOfASecretThatWentMeanwhile(t *testing.T) {
	f := newFixture(t, served(), robot(), managed())
	f.api.onPatch = func(_, _ *corev1.Secret) {
		if err := f.cfg.Secrets.GetStore().Delete(reduced(managed())); err != nil {
			t.Error(err)
		}
		f.secretEvents().Deleted(reduced(managed()))
	}
	f.mustDo(t)
	if n := len(f.notes.bySecret); n > 0 {
		t.Errorf("remembers %d secrets", n)
	}
}

func TestFormatsAreSwitched(t *testing.T) {
	f := newFixture(t, served(), robot(), managed(testkit.WithData("extra", "mine too")))
	f.mustDo(t)
	for _, step := range []struct {
		in   map[string]string
		want []string
	}{
		{settings("format", "kubeconfig"), []string{"extra", "kubeconfig", "mine"}},
		{settings("format", "argocd-cluster"), []string{"config", "extra", "mine", "name", "server"}},
		{settings("format", "custom", "token-key", "password"), []string{"ca.crt", "extra", "mine", "namespace", "password"}},
		{settings("format", "custom", "token-key", "pass"), []string{"ca.crt", "extra", "mine", "namespace", "pass"}},
	} {
		f.cache(t, f.api.secret())
		if err := f.api.set(func(s *corev1.Secret) { maps.Copy(s.Annotations, step.in) }); err != nil {
			t.Fatal(err)
		}
		f.mustDo(t)
		if diff := cmp.Diff(step.want, slices.Sorted(maps.Keys(f.api.secret().Data))); diff != "" {
			t.Errorf("%v (-want +got):\n%s", step.in, diff)
		}
	}
}

func TestAnAccountGoesAndComesAgain(t *testing.T) {
	f := newFixture(t, served(), robot(), managed())
	f.mustDo(t)
	if err := f.cfg.ServiceAccounts.GetStore().Delete(robot()); err != nil {
		t.Fatal(err)
	}
	f.requests()
	if again := f.mustDo(t); again != lookAgain {
		t.Errorf("looks again in %v", again)
	}
	if diff := cmp.Diff([]string{"get serviceaccounts team/robot"}, f.summary()); diff != "" {
		t.Errorf("while only the cache says that the account went (-want +got):\n%s", diff)
	}
	if err := f.api.Tracker().Delete(accountsResource, "team", "robot"); err != nil {
		t.Fatal(err)
	}
	f.mustDo(t)
	if diff := cmp.Diff([]string{"get serviceaccounts team/robot", "patch secrets team/s"}, f.summary()); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
	bare := managed(testkit.WithResourceVersion("102"))
	if diff := cmp.Diff(bare, f.api.secret()); diff != "" {
		t.Errorf("what is left (-want +got):\n%s", diff)
	}
	want := []string{"Warning RemovedToken ServiceAccount robot is gone, and its token was removed from here: ca.crt, namespace, token. Another one is written when there is such a ServiceAccount again"}
	if diff := cmp.Diff(want, testkit.Events(f.recorder)); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	f.mustDo(t)
	want = []string{"Warning NoServiceAccount sakeeper.io/service-account: there is no ServiceAccount robot in this namespace; create it, or name another"}
	if diff := cmp.Diff(want, testkit.Events(f.recorder)); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	f.cache(t, robot(testkit.WithUID(testkit.OtherUID)))
	f.mustDo(t)
	if diff := cmp.Diff(oneToken(), f.summary()); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

func TestARefusalIsToldOnceUntilItChanges(t *testing.T) {
	f := newFixture(t, served(), robot(), managed(with("lifetime", "1m")))
	step := func(what string, change func(*corev1.Secret), want ...string) {
		t.Helper()
		if err := f.api.set(change); err != nil {
			t.Fatal(err)
		}
		f.mustDo(t)
		f.mustDo(t)
		if diff := cmp.Diff(want, testkit.Events(f.recorder)); diff != "" {
			t.Errorf("%s: events (-want +got):\n%s", what, diff)
		}
	}
	short := `Warning InvalidTokenSetting sakeeper.io/lifetime: "1m" is not a duration from 10m to 1193046h, such as 24h`
	step("at first", func(*corev1.Secret) {}, short)
	step("an unrelated change", func(s *corev1.Secret) { s.Data["mine"] = []byte("no") })
	step("another mistake", func(s *corev1.Secret) { s.Annotations[api.LifetimeAnnotation] = "2m" },
		`Warning InvalidTokenSetting sakeeper.io/lifetime: "2m" is not a duration from 10m to 1193046h, such as 24h`)
	if got := f.summary(); len(got) > 0 {
		t.Errorf("requests: %v", got)
	}
	step("right", func(s *corev1.Secret) { s.Annotations[api.LifetimeAnnotation] = "20m" })
	step("wrong again", func(s *corev1.Secret) { s.Annotations[api.LifetimeAnnotation] = "1m" }, short)
	if diff := cmp.Diff(oneToken(), f.summary()); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

func TestFailures(t *testing.T) {
	const forbidden = `Warning FailedTokenRenewal The token here cannot be renewed: request a token for service account team/robot: things "name" is forbidden: exceeded quota: few`
	cases := map[string]struct {
		inTokens, inWrites error
		inAnswer           string
		want               []string
		wantAgain          time.Duration
		wantErr            bool
		wantAfterAWhile    []string
	}{
		"forbidden": {inTokens: testkit.QuotaExceeded(), want: []string{forbidden}, wantErr: true},
		"no such account any more": {
			inTokens: testkit.NotFound(), wantAgain: lookAgain, wantErr: true,
			wantAfterAWhile: []string{`Warning FailedTokenRenewal The token here cannot be renewed: request a token for service account team/robot: things "name" not found`},
		},
		"an outage": {
			inTokens: errBoom, wantErr: true,
			wantAfterAWhile: []string{"Warning FailedTokenRenewal The token here cannot be renewed: request a token for service account team/robot: boom"},
		},
		"a namespace on its way out": {inTokens: testkit.NamespaceTerminating(), wantAgain: lookAgain},
		"something that is no token": {
			inAnswer: "opaque-" + secretBytes, wantErr: true,
			wantAfterAWhile: []string{"Warning FailedTokenRenewal The token here cannot be renewed: request a token for service account team/robot: read the answer of the API server: it is not a token with claims"},
		},
		"words that quote a token": {
			inTokens: testkit.Invalid("spec", secretBytes), wantErr: true,
			want: []string{"Warning FailedTokenRenewal The token here cannot be renewed: request a token for service account team/robot: Invalid (the message is redacted, because it contains a token)"},
		},
		"a conflict": {
			inWrites: testkit.Conflict(), wantAgain: lookAgain, wantErr: true,
			wantAfterAWhile: []string{"Warning FailedTokenRenewal The token here cannot be renewed: write secret team/s: " + testkit.Conflict().Error()},
		},
		"a secret that went": {
			inWrites: testkit.NotFound(), wantAgain: lookAgain, wantErr: true,
			wantAfterAWhile: []string{"Warning FailedTokenRenewal The token here cannot be renewed: write secret team/s: " + testkit.NotFound().Error()},
		},
		"a write that is refused": {
			inWrites: testkit.Invalid("data", secretBytes), wantErr: true,
			want: []string{"Warning FailedTokenRenewal The token here cannot be renewed: write secret team/s: Invalid (the message is redacted, because it contains a token)"},
		},
		"a write that is lost": {
			inWrites: testkit.InternalError(), wantErr: true,
			wantAfterAWhile: []string{"Warning FailedTokenRenewal The token here cannot be renewed: write secret team/s: Internal error occurred: etcd is slow"},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, served(), robot(), managed())
			f.api.change(func(a *apiServer) { a.tokensErr, a.writesErr, a.answer = tc.inTokens, tc.inWrites, tc.inAnswer })
			again, err := f.do(t)
			if again != tc.wantAgain || err != nil != tc.wantErr || errors.Is(err, workqueue.ErrRequeueLater) != (err != nil && again > 0) {
				t.Errorf("again in %v, error %v", again, err)
			}
			if err != nil && strings.Contains(err.Error(), secretBytes) {
				t.Error("the error holds a token")
			}
			if diff := cmp.Diff(tc.want, testkit.Events(f.recorder)); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
			if f.notes.of(testkit.SecretUID).failing.IsZero() == tc.wantErr {
				t.Errorf("noted as failing: %t", !tc.wantErr)
			}
			if tc.wantAfterAWhile != nil {
				f.pass(blip)
				if _, err := f.do(t); err == nil {
					t.Error("no error")
				}
				if diff := cmp.Diff(tc.wantAfterAWhile, testkit.Events(f.recorder)); diff != "" {
					t.Errorf("events after a while (-want +got):\n%s", diff)
				}
			}
			f.api.change(func(a *apiServer) { a.tokensErr, a.writesErr, a.answer = nil, nil, "" })
			f.pass(retryOutage)
			f.mustDo(t)
			if len(f.api.secret().Data["token"]) == 0 || !f.notes.of(testkit.SecretUID).failing.IsZero() {
				t.Error("no token when the failure was over, or still noted")
			}
		})
	}
}

func TestRetryAfter(t *testing.T) {
	cases := map[string]struct {
		inLeft    time.Duration
		inRefused bool
		want      time.Duration
	}{
		"an outage":                    {want: 30 * time.Second},
		"an outage with some time":     {inLeft: 5 * time.Minute, want: 30 * time.Second},
		"an outage with much time":     {inLeft: time.Hour, want: 30 * time.Second},
		"refused, and nothing to lose": {inRefused: true},
		"refused, and expired":         {inRefused: true, inLeft: -time.Hour},
		"refused, an hour left":        {inRefused: true, inLeft: time.Hour, want: 6 * time.Minute},
		"refused, a minute left":       {inRefused: true, inLeft: time.Minute, want: 30 * time.Second},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := retryAfter(tc.inLeft, tc.inRefused); got != tc.want {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

func TestWhatSomebodyUndoesIsLeftAlone(t *testing.T) {
	f := newFixture(t, served(), robot(), managed())
	for range 20 {
		f.mustDo(t)
		if err := f.api.set(func(s *corev1.Secret) { delete(s.Data, "token") }); err != nil {
			t.Fatal(err)
		}
		f.pass(time.Second)
	}
	if again := f.mustDo(t); again < 50*time.Minute {
		t.Errorf("looks again in %v", again)
	}
	if got := f.summary(); len(got) != 10 {
		t.Errorf("%d requests: %v", len(got), got)
	}
	if events := testkit.Events(f.recorder); len(events) != 1 || !strings.Contains(events[0], "LeftAlone") {
		t.Errorf("events %q", events)
	}
	// To rotate is another matter.
	if err := f.api.set(func(s *corev1.Secret) { s.Annotations[api.RotateAnnotation] = "now" }); err != nil {
		t.Fatal(err)
	}
	f.mustDo(t)
	if diff := cmp.Diff(oneToken(), f.summary()); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

// TestWhatGoesOnInOneNamespaceIsNobodyElsesTrouble: however many Secrets are contended in
// one, Secrets of others are filled.
func TestWhatGoesOnInOneNamespaceIsNobodyElsesTrouble(t *testing.T) {
	f := newFixture(t, served(), robot(), managed())
	for i := range 30 {
		secret := contested{namespace: "noisy", name: fmt.Sprint("s", i), uid: fmt.Sprint(i)}
		for range 5 {
			f.truces.Record(secret, "a token")
		}
		f.truces.Allow(secret, "a token")
	}
	if f.truces.Allow(contested{namespace: "noisy", name: "new", uid: "new"}, "a token").Wait == 0 {
		t.Error("the noisy namespace is not left alone")
	}
	f.mustDo(t)
	if diff := cmp.Diff(oneToken(), f.summary()); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

func TestANewCAIsWritten(t *testing.T) {
	f := newFixture(t, served(), robot(), managed())
	f.mustDo(t)
	*f.ca = testkit.OtherBundle()
	f.mustDo(t)
	if got := string(f.api.secret().Data["ca.crt"]); got != string(testkit.OtherBundle().PEM()) {
		t.Error("the CA is still the former one")
	}
	f.requests()
	f.mustDo(t)
	if got := f.summary(); len(got) > 0 {
		t.Errorf("a second time: %v", got)
	}
}

// TestANewCAIsWrittenAtABoundedRate: 500 at once, and then 50 in a second; who waits for
// a token does not wait for them.
func TestANewCAIsWrittenAtABoundedRate(t *testing.T) {
	f := newFixture(t, served(), robot(), managed())
	f.mustDo(t)
	f.cache(t, f.api.secret())
	f.requests()
	for i := range burst + 50 {
		f.slots.When(toolscache.ObjectName{Name: strconv.Itoa(i)})
	}
	*f.ca = testkit.OtherBundle()
	if again := f.mustDo(t); again < time.Second || again > 2*time.Second || len(f.requests()) > 0 {
		t.Errorf("looks again in %v", again)
	}
	f.pass(2 * time.Second)
	f.mustDo(t)
	if diff := cmp.Diff(oneToken(), f.summary()); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
	for i := range burst + 50 {
		f.slots.When(toolscache.ObjectName{Name: "again " + strconv.Itoa(i)})
	}
	if err := f.api.set(func(s *corev1.Secret) { s.Annotations[api.RotateAnnotation] = "now" }); err != nil {
		t.Fatal(err)
	}
	f.mustDo(t)
	if diff := cmp.Diff(oneToken(), f.summary()); diff != "" {
		t.Errorf("requests of a rotation (-want +got):\n%s", diff)
	}
}

func TestNew(t *testing.T) {
	good := newFixture(t).cfg
	good.Registerer = nil
	for name, spoil := range map[string]func(*Config){
		"no client":           func(c *Config) { c.Client = nil },
		"no namespaces":       func(c *Config) { c.Namespaces = nil },
		"no secrets":          func(c *Config) { c.Secrets = nil },
		"no service accounts": func(c *Config) { c.ServiceAccounts = nil },
		"no CA":               func(c *Config) { c.CA = nil },
		"no recorder":         func(c *Config) { c.Recorder = nil },
		"no clock":            func(c *Config) { c.Clock = nil },
		"no running clock":    func(c *Config) { c.Running = nil },
		"a bad server":        func(c *Config) { c.PublicServer = "api:6443" },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := good
			spoil(&cfg)
			if c, err := New(cfg); err == nil || c != nil || !strings.HasPrefix(err.Error(), Name+": ") {
				t.Errorf("got %v, %v", c, err)
			}
		})
	}
}
