package rotation_test

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	toolscache "k8s.io/client-go/tools/cache"
	testingclock "k8s.io/utils/clock/testing"

	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/keys/rotation"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/token"
)

type secretFixture struct {
	*rotation.Secret
	t      *testing.T
	client *fake.Clientset
}

func newSecretFixture(t *testing.T, now float64, entries ...keys.Entry) secretFixture {
	t.Helper()
	client := fake.NewClientset()
	f := secretFixture{
		Secret: rotation.OpenSecret(client.CoreV1(), toolscache.ObjectName{Namespace: "ours", Name: "keys"}, testingclock.NewFakePassiveClock(at(now))),
		t:      t, client: client,
	}
	if len(entries) > 0 {
		_, err := client.CoreV1().Secrets("ours").Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "ours", Name: "keys"}, Data: filesOf(t, entries...)}, metav1.CreateOptions{})
		mustDo(t, err)
	}
	client.ClearActions()
	return f
}

// expect compares the Secret, the ConfigMap, and the writes since the last time.
func (f secretFixture) expect(step string, writes string, want ...keys.Entry) {
	f.t.Helper()
	var got []string
	for _, action := range f.client.Actions() {
		if action.GetVerb() != "get" {
			got = append(got, action.GetVerb()+" "+action.GetResource().Resource)
		}
	}
	if diff := cmp.Diff(writes, strings.Join(got, ", ")); diff != "" {
		f.t.Errorf("%s: writes (-want +got):\n%s", step, diff)
	}
	secret, err := f.client.CoreV1().Secrets("ours").Get(f.t.Context(), "keys", metav1.GetOptions{})
	mustDo(f.t, err)
	if diff := cmp.Diff(filesOf(f.t, want...), secret.Data); diff != "" {
		f.t.Errorf("%s: secret (-want +got):\n%s", step, diff)
	}
	mirror, err := f.client.CoreV1().ConfigMaps("ours").Get(f.t.Context(), rotation.PublicConfigMapName, metav1.GetOptions{})
	mustDo(f.t, err)
	public := map[string]string{}
	for _, m := range want {
		content, err := m.WithoutPrivateKey().Encode()
		mustDo(f.t, err)
		public[m.WithoutPrivateKey().FileName()] = string(content)
	}
	if diff := cmp.Diff(public, mirror.Data); diff != "" {
		f.t.Errorf("%s: config map (-want +got):\n%s", step, diff)
	}
	f.client.ClearActions()
}

func TestStepsOnASecret(t *testing.T) {
	f := newSecretFixture(t, 0)
	step := func(action rotation.Action, m keys.Entry, hours float64) keys.Entry {
		t.Helper()
		_, err := f.Load(t.Context())
		mustDo(t, err)
		next, err := rotation.ApplyStep(t.Context(), f, rotation.Step{Action: action, Key: m, Since: at(hours)}, jose.ES256, rotation.Settings{MaxExpiration: time.Hour})
		mustDo(t, err)
		return next
	}
	mustDo(t, f.Begin(t.Context()))
	first := step(rotation.ActionFirst, keys.Entry{}, 0)
	f.expect("the first key", "create configmaps, create secrets", first)
	mustDo(t, f.Begin(t.Context()))
	f.expect("nothing is to be mended", "", first)
	published := step(rotation.ActionPublish, keys.Entry{}, 1)
	f.expect("published: verifiers have it first", "update configmaps, update secrets", first, published)
	promoted := step(rotation.ActionPromote, published, 2)
	f.expect("promoted", "update configmaps, update secrets", first, promoted)
	retired := step(rotation.ActionRetire, first, 2)
	f.expect("retired", "update configmaps, update secrets", retired, promoted)
	step(rotation.ActionRemove, retired, 9)
	f.expect("removed: verifiers lose it last", "update secrets, update configmaps", promoted)
}

func TestALostMirrorBeginsTheWaitAnew(t *testing.T) {
	signing, published := entry("p256", keys.StateSigning, 1), entry("p384", keys.StatePublished, 2)
	f := newSecretFixture(t, 5, signing, published)
	mustDo(t, f.Begin(t.Context()))
	f.expect("it was removed", "create configmaps, update configmaps, update secrets", signing, published.WithState(keys.StatePublished, at(5)))
	mustDo(t, f.Begin(t.Context()))
	f.expect("again", "", signing, published.WithState(keys.StatePublished, at(5)))

	mirror, err := f.client.CoreV1().ConfigMaps("ours").Get(t.Context(), rotation.PublicConfigMapName, metav1.GetOptions{})
	mustDo(t, err)
	mirror.Data[signing.WithoutPrivateKey().FileName()] = "spoiled"
	_, err = f.client.CoreV1().ConfigMaps("ours").Update(t.Context(), mirror, metav1.UpdateOptions{})
	mustDo(t, err)
	f.client.ClearActions()
	mustDo(t, f.Begin(t.Context()))
	f.expect("the signing key was spoiled", "update configmaps", signing, published.WithState(keys.StatePublished, at(5)))
}

func TestASecretThatWasChangedSinceLoad(t *testing.T) {
	signing := entry("p256", keys.StateSigning, 1)
	f := newSecretFixture(t, 5, signing)
	_, err := f.Load(t.Context())
	mustDo(t, err)
	secrets := schema.GroupResource{Resource: "secrets"}
	answers := map[string]struct {
		in   error
		want string
	}{
		"a conflict": {apierrors.NewConflict(secrets, "keys", nil), "write secret ours/keys: it was changed at the same time; run the command again"},
		"a deletion": {apierrors.NewNotFound(secrets, "keys"), "write secret ours/keys: it was changed at the same time; run the command again"},
		"a refusal that quotes the keys": {
			apierrors.NewForbidden(secrets, "keys", &quoting{}), "write secret ours/keys: the API server answered 403 Forbidden",
		},
	}
	for name, tc := range answers {
		f.client.PrependReactor("update", "secrets", func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, tc.in })
		_, err := rotation.ApplyStep(t.Context(), f, rotation.Step{Action: rotation.ActionPublish, Since: at(2)}, jose.ES256, rotation.Settings{})
		if err == nil || err.Error() != tc.want {
			t.Errorf("%s: %v", name, err)
		}
		if tc.want == answers["a conflict"].want { // verifiers have what the Secret has
			mirror, err := f.client.CoreV1().ConfigMaps("ours").Get(t.Context(), rotation.PublicConfigMapName, metav1.GetOptions{})
			mustDo(t, err)
			if names := slices.Collect(maps.Keys(mirror.Data)); len(names) != 1 || names[0] != signing.WithoutPrivateKey().FileName() {
				t.Errorf("%s: the mirror has %v", name, names)
			}
		}
	}
	f = newSecretFixture(t, 5)
	_, err = f.client.CoreV1().Secrets("ours").Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "ours", Name: "keys"}, Data: map[string][]byte{"sa.key": nil}}, metav1.CreateOptions{})
	mustDo(t, err)
	if err := f.Begin(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "secret ours/keys: sa.key: is not named ") {
		t.Errorf("another secret: %v", err)
	}
}

type quoting struct{}

func (*quoting) Error() string { return "denied: -----BEGIN PRIVATE KEY-----" }

func TestCountTokenSecrets(t *testing.T) {
	builder := token.LegacyClaims{Namespace: "build", SecretName: "t", ServiceAccountName: "builder", ServiceAccountUID: "c0ffee"}
	sign := func(vector string) string {
		set := testkit.Keys(vector)
		compact, err := token.NewSigner(func() *keys.Set { return set }).SignLegacy(t.Context(), builder)
		mustDo(t, err)
		return compact
	}
	var objects []runtime.Object
	for name, compact := range map[string]string{"a": sign("p256"), "b": sign("p256"), "c": sign("p384"), "d": sign("p521"), "e": "garbage", "f": ""} {
		objects = append(objects, testkit.Secret("build/"+name, testkit.WithData(corev1.ServiceAccountTokenKey, compact)))
	}
	client := fake.NewClientset(objects...)
	ring := keyringOf(t, entry("p256", keys.StateSigning, 1), entry("p384", keys.StateLegacy, 1), entry("rsa2048", keys.StateRetired, 1))
	got, err := rotation.CountTokenSecrets(t.Context(), client.CoreV1(), ring)
	mustDo(t, err)
	want := rotation.TokenSecretCounts{testkit.Keys("p256").Signing().String(): 2, testkit.Keys("p384").Signing().String(): 1}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	list := client.Actions()[0].(clienttesting.ListAction)
	if got := list.GetListRestrictions().Fields.String(); got != "type=kubernetes.io/service-account-token" {
		t.Errorf("listed %q", got)
	}
	client.PrependReactor("list", "secrets", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: "secrets"}, "", nil)
	})
	if counts, err := rotation.CountTokenSecrets(t.Context(), client.CoreV1(), ring); err == nil || counts != nil {
		t.Errorf("forbidden: %v, %v", counts, err)
	}
}
