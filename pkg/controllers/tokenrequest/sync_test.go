package tokenrequest

import (
	"encoding/base64"
	"errors"
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
	f.mustSync(t)
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
		t.Error("no token, or not the user's data")
	}
	if again := f.mustSync(t); again <= 0 {
		t.Error("no next sync")
	}
	f.expectRequests(t)
}

func TestNoSecondTokenWhileTheCacheLags(t *testing.T) {
	f := newFixture(t, served(), robot(), managed())
	f.mustSync(t)
	if again, err := f.syncSecret(t); again != requeueAfter || err != nil {
		t.Errorf("again after %v (%v)", again, err)
	}
	f.expectRequests(t, oneToken()...)
	f.pass(maxCacheLag + time.Second)                                          // as after a restore of etcd, whose resourceVersions are lower
	if _, err := f.syncSecret(t); !errors.Is(err, workqueue.ErrRequeueLater) { // the cache was stale
		t.Error(err)
	}
	f.expectRequests(t, oneToken()...)
}

// TestADeletedSecretLeavesNoNote delivers the delete event before the response to a patch.
func TestADeletedSecretLeavesNoNote(t *testing.T) {
	f := newFixture(t, served(), robot(), managed())
	f.api.onPatch = func(_, _ *corev1.Secret) {
		if err := f.cfg.Secrets.GetStore().Delete(reduced(managed())); err != nil {
			t.Error(err)
		}
		f.secretEvents().Deleted(reduced(managed()))
	}
	f.mustSync(t)
	if n := len(f.notes.bySecret); n > 0 {
		t.Errorf("%d notes are left", n)
	}
}

func TestFormatsAreSwitched(t *testing.T) {
	f := newFixture(t, served(), robot(), managed(testkit.WithData("extra", "mine too")))
	f.mustSync(t)
	for _, step := range []struct {
		in   map[string]string
		want []string
	}{
		{annotations("format", "kubeconfig"), []string{"extra", "kubeconfig", "mine"}},
		{annotations("format", "argocd-cluster"), []string{"config", "extra", "mine", "name", "server"}},
		{annotations("format", "custom", "token-key", "password"), []string{"ca.crt", "extra", "mine", "namespace", "password"}},
		{annotations("format", "custom", "token-key", "pass"), []string{"ca.crt", "extra", "mine", "namespace", "pass"}},
	} {
		f.cache(t, f.api.secret())
		f.api.updateSecret(func(s *corev1.Secret) { maps.Copy(s.Annotations, step.in) })
		f.mustSync(t)
		if diff := cmp.Diff(step.want, slices.Sorted(maps.Keys(f.api.secret().Data))); diff != "" {
			t.Errorf("%v (-want +got):\n%s", step.in, diff)
		}
	}
}

func TestAnAccountIsDeletedAndCreatedAgain(t *testing.T) {
	f := newFixture(t, served(), robot(), managed())
	f.mustSync(t)
	if err := f.cfg.ServiceAccounts.GetStore().Delete(robot()); err != nil {
		t.Fatal(err)
	}
	f.requests()
	if again := f.mustSync(t); again != requeueAfter {
		t.Errorf("again after %v", again)
	}
	f.expectRequests(t, "get serviceaccounts team/robot")
	f.api.Remove(robot())
	f.expectSync(t, "get serviceaccounts team/robot", "patch secrets team/s")
	bare := managed(testkit.WithResourceVersion("1003"),
		with("problem", "sakeeper.io/service-account: there is no ServiceAccount robot in this namespace; create it, or name another"))
	if diff := cmp.Diff(bare, f.api.secret()); diff != "" {
		t.Errorf("secret (-want +got):\n%s", diff)
	}
	want := []string{"Warning RemovedToken ServiceAccount robot is gone, and its token was removed from this Secret: ca.crt, namespace, token. Another token is written when a ServiceAccount of that name exists"}
	f.expectEvents(t, want...)
	f.expectSync(t) // the removal said it all
	f.cache(t, robot(testkit.WithUID(testkit.OtherUID)))
	f.expectSync(t, oneToken()...)
}

func TestAWarningIsRecordedOnceUntilItChanges(t *testing.T) {
	f := newFixture(t, served(), robot(), managed(with("lifetime", "1m")))
	step := func(what string, change func(*corev1.Secret), want ...string) {
		t.Helper()
		t.Log(what)
		f.api.updateSecret(change)
		f.mustSync(t)
		f.mustSync(t)
		f.expectEvents(t, want...)
	}
	short := `Warning InvalidTokenSetting sakeeper.io/lifetime: "1m" is not a duration from 10m to 1193046h, such as 24h`
	step("at first", func(*corev1.Secret) {}, short)
	step("an unrelated change", func(s *corev1.Secret) { s.Data["mine"] = []byte("no") })
	step("another mistake", func(s *corev1.Secret) { s.Annotations[api.LifetimeAnnotation] = "2m" },
		`Warning InvalidTokenSetting sakeeper.io/lifetime: "2m" is not a duration from 10m to 1193046h, such as 24h`)
	f.expectRequests(t, "patch secrets team/s", "patch secrets team/s")
	step("valid", func(s *corev1.Secret) { s.Annotations[api.LifetimeAnnotation] = "20m" })
	step("invalid again", func(s *corev1.Secret) { s.Annotations[api.LifetimeAnnotation] = "1m" }, short)
	f.expectRequests(t, append(oneToken(), "patch secrets team/s")...)
}

// exhaustLimiter has so many other Secrets written that the next must wait for a second.
func (f fixture) exhaustLimiter(others string) {
	for i := range burst + 50 {
		f.limiter.When(toolscache.ObjectName{Namespace: others, Name: strconv.Itoa(i)})
	}
}

// TestANewCAIsWrittenAtABoundedRate allows 500 writes at once, then 50 per second. A
// rotation does not wait for them.
func TestANewCAIsWrittenAtABoundedRate(t *testing.T) {
	f := newFixture(t, served(), robot(), managed())
	f.mustSync(t)
	f.cache(t, f.api.secret())
	f.requests()
	f.exhaustLimiter("others")
	*f.ca = testkit.OtherBundle()
	if again := f.mustSync(t); again < time.Second || again > 2*time.Second || len(f.requests()) > 0 {
		t.Errorf("again after %v", again)
	}
	f.pass(2 * time.Second)
	f.expectSync(t, oneToken()...)
	if got := string(f.api.secret().Data["ca.crt"]); got != string(testkit.OtherBundle().PEM()) {
		t.Error("the CA is still the former one")
	}
	f.expectSync(t)
	f.exhaustLimiter("others again")
	f.api.updateSecret(func(s *corev1.Secret) { s.Annotations[api.RotateAnnotation] = "now" })
	f.expectSync(t, oneToken()...)
}

func TestNewRefusesABadConfig(t *testing.T) {
	good := newFixture(t).cfg
	good.Registerer = nil
	testkit.ExpectRequired(t, good, New, "AllNamespaces", "PublicServer", "Workers", "Registerer")
	good.PublicServer = "api:6443"
	if _, err := New(good); err == nil || !strings.HasPrefix(err.Error(), Name+": PublicServer: ") {
		t.Errorf("error %v", err)
	}
}
