package cache

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/token"
)

const lastApplied = "kubectl.kubernetes.io/last-applied-configuration"

// reducedMeta is what is kept of the metadata of the testkit's "team/..." objects.
func reducedMeta(o metav1.Object) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: o.GetNamespace(), Name: o.GetName(), UID: o.GetUID(), ResourceVersion: testkit.ResourceVersion,
		CreationTimestamp: metav1.NewTime(testkit.Instant()), DeletionTimestamp: o.GetDeletionTimestamp(), Labels: o.GetLabels(),
	}
}

// tokenOf returns what is kept of a token without an Inspect function.
func tokenOf(secret *corev1.Secret) Token { return Token{Sum: sha256.Sum256(secret.Data["token"])} }

func TestNewTokenSecret(t *testing.T) {
	none := sha256.Sum256(nil)
	cases := map[string]struct {
		in   *corev1.Secret
		want func(in *corev1.Secret) *TokenSecret
	}{
		"an empty one is kept whole, less its managed fields": {
			in: testkit.Secret("team/s", testkit.WithAccount("robot"), testkit.WithAnnotation("note", "mine"),
				testkit.WithLabel("app", "ci"), testkit.WithManagedFields()),
			want: func(in *corev1.Secret) *TokenSecret {
				return &TokenSecret{ObjectMeta: reducedMeta(in), Token: tokenOf(in), Account: "robot", CASum: none,
					Unfilled: testkit.Secret("team/s", testkit.WithAccount("robot"), testkit.WithAnnotation("note", "mine"), testkit.WithLabel("app", "ci"))}
			},
		},
		"so is one whose token is empty, with all that it has besides": {
			in: testkit.Secret("team/s", testkit.WithAccount("robot"), testkit.WithData("token", ""), testkit.WithData("namespace", "team"),
				testkit.WithData("ca.crt", "a CA"), testkit.WithData("extra", "of a user"), testkit.Deleting()),
			want: func(in *corev1.Secret) *TokenSecret {
				return &TokenSecret{ObjectMeta: reducedMeta(in), Token: tokenOf(in), Account: "robot", CASum: sha256.Sum256([]byte("a CA")), NamespaceRight: true, Unfilled: in.DeepCopy()}
			},
		},
		"another namespace is not right": {
			in: testkit.Secret("team/s", testkit.WithAccount("robot"), testkit.WithData("token", "eyJ"), testkit.WithData("namespace", "elsewhere")),
			want: func(in *corev1.Secret) *TokenSecret {
				return &TokenSecret{ObjectMeta: reducedMeta(in), Token: tokenOf(in), Account: "robot", CASum: none}
			},
		},
		"of one with a token only values are kept": {
			in: testkit.Secret("team/s", testkit.WithAccount("robot"), testkit.WithAccountUID(testkit.AccountUID), testkit.WithAnnotation("note", "mine"),
				testkit.WithLabel("app", "ci"), testkit.WithData("token", "eyJ"), testkit.WithData("ca.crt", "a CA"), testkit.WithData("namespace", "team"), testkit.WithManagedFields(), testkit.Deleting()),
			want: func(in *corev1.Secret) *TokenSecret {
				return &TokenSecret{ObjectMeta: reducedMeta(in), Token: tokenOf(in), Account: "robot", AccountUID: testkit.AccountUID, CASum: sha256.Sum256([]byte("a CA")), NamespaceRight: true}
			},
		},
		"without a CA the sum is that of no bytes": {
			in: testkit.Secret("team/s", testkit.WithAccount("robot"), testkit.WithData("token", "eyJ"), testkit.WithData("namespace", "")),
			want: func(in *corev1.Secret) *TokenSecret {
				return &TokenSecret{ObjectMeta: reducedMeta(in), Token: tokenOf(in), Account: "robot", CASum: none}
			},
		},
		"without annotations there is no account": {
			in: testkit.Secret("team/s", testkit.WithData("token", "eyJ")),
			want: func(in *corev1.Secret) *TokenSecret {
				return &TokenSecret{ObjectMeta: reducedMeta(in), Token: tokenOf(in), CASum: none}
			},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			want := tc.want(tc.in)
			if diff := cmp.Diff(want, NewTokenSecret(tc.in, nil)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestWhatIsKeptOfAToken(t *testing.T) {
	const compact = "the token"
	own := token.LegacyClaims{Namespace: "team", SecretName: "s", ServiceAccountName: "robot", ServiceAccountUID: "uid of the claims"}
	of := func(change func(*token.LegacyClaims)) token.Inspection {
		facts := token.Inspection{UnverifiedClaims: own, VerifiedBy: "key", TriedWith: "keys"}
		change(&facts.UnverifiedClaims)
		return facts
	}
	other := Token{Other: true, ClaimedUID: "uid of the claims", VerifiedBy: "key", TriedWith: "keys"}
	cases := map[string]struct {
		inFacts token.Inspection
		inErr   error
		want    Token // less its sum
	}{
		"its own, of a known key": {
			inFacts: of(func(*token.LegacyClaims) {}),
			want:    Token{Own: true, ClaimedUID: "uid of the claims", VerifiedBy: "key", TriedWith: "keys"},
		},
		"its own, of no known key": {inFacts: token.Inspection{UnverifiedClaims: own}, want: Token{Own: true, ClaimedUID: "uid of the claims"}},
		"no legacy token":          {inFacts: token.Inspection{UnverifiedClaims: own}, inErr: token.ErrIssuer},
		"of another namespace":     {inFacts: of(func(c *token.LegacyClaims) { c.Namespace = "other" }), want: other},
		"of another secret":        {inFacts: of(func(c *token.LegacyClaims) { c.SecretName = "other" }), want: other},
		"of another account":       {inFacts: of(func(c *token.LegacyClaims) { c.ServiceAccountName = "other" }), want: other},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			inspect := func(got string) (token.Inspection, error) {
				if got != compact {
					t.Errorf("asked about %q", got)
				}
				return tc.inFacts, tc.inErr
			}
			tc.want.Sum = sha256.Sum256([]byte(compact))
			secret := testkit.Secret("team/s", testkit.WithAccount("robot"), testkit.WithData("token", compact))
			if diff := cmp.Diff(tc.want, NewTokenSecret(secret, inspect).Token); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
	t.Run("none", func(t *testing.T) {
		secret := testkit.Secret("team/s", testkit.WithAccount("robot"))
		got := NewTokenSecret(secret, func(string) (token.Inspection, error) { panic("there is nothing to read") })
		if diff := cmp.Diff(Token{Sum: sha256.Sum256(nil)}, got.Token); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	})
}

func TestSettingsAreKept(t *testing.T) {
	want := map[string]string{api.KeepAnnotation: "true", api.CleanUpUnusedAnnotation: "24h", api.ResignAnnotation: "never", api.CleanedUpAnnotation: "2026-01-02"}
	opts := []testkit.Option{testkit.WithAnnotation("note", "mine")}
	for key, value := range want {
		opts = append(opts, testkit.WithAnnotation(key, value))
	}
	secret := NewTokenSecret(testkit.Secret("team/s", opts...), nil)
	if diff := cmp.Diff(want, secret.Annotations); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestSetting(t *testing.T) {
	object, namespace := map[string]string{"a": "object", "b": ""}, map[string]string{"a": "namespace", "b": "namespace", "c": "namespace"}
	type result struct {
		Value string
		Which int
	}
	for key, want := range map[string]result{"a": {"object", 0}, "b": {"", 0}, "c": {"namespace", 1}, "d": {"", -1}} {
		value, which := Setting(key, object, namespace)
		if diff := cmp.Diff(want, result{value, which}); diff != "" {
			t.Errorf("%s (-want +got):\n%s", key, diff)
		}
	}
	if _, which := Setting("a", nil, namespace); which != 1 {
		t.Error("an object without annotations hides its namespace")
	}
}

func TestAccountName(t *testing.T) {
	secret := NewTokenSecret(testkit.Secret("team/s", testkit.WithAccount("robot")), nil)
	if got, want := secret.AccountName().String(), "team/robot"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestNoTokenBytesAreKept(t *testing.T) {
	const bytesOfToken = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJyb2JvdCJ9.c2lnbmF0dXJl"
	encoded := base64.StdEncoding.EncodeToString([]byte(bytesOfToken))
	secret := testkit.Secret("team/s", testkit.WithAccount("robot"), testkit.WithLabel("app", "ci"), testkit.WithManagedFields(),
		testkit.WithData("token", bytesOfToken), testkit.WithData("copy", bytesOfToken), testkit.WithData("ca.crt", "a CA"),
		testkit.WithAnnotation(lastApplied, `{"data":{"token":"`+encoded+`"}}`))
	for _, needle := range []string{bytesOfToken, encoded} {
		if !holds(reflect.ValueOf(secret), needle) {
			t.Fatalf("the test finds no %q where it is", needle)
		}
	}
	reduced := NewTokenSecret(secret, nil)
	for _, needle := range []string{bytesOfToken, encoded} {
		if holds(reflect.ValueOf(reduced), needle) {
			t.Errorf("%q is kept", needle)
		}
	}
}

// holds returns true if any string or byte slice that can be reached from v
// contains needle.
func holds(v reflect.Value, needle string) bool {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		return !v.IsNil() && holds(v.Elem(), needle)
	case reflect.Struct:
		for _, field := range v.Fields() {
			if holds(field, needle) {
				return true
			}
		}
	case reflect.Map:
		for _, key := range v.MapKeys() {
			if holds(key, needle) || holds(v.MapIndex(key), needle) {
				return true
			}
		}
	case reflect.Slice, reflect.Array:
		if v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Uint8 {
			return bytes.Contains(v.Bytes(), []byte(needle))
		}
		for i := range v.Len() {
			if holds(v.Index(i), needle) {
				return true
			}
		}
	case reflect.String:
		return strings.Contains(v.String(), needle)
	}
	return false
}

// TestATokenIsInspectedOnce: not again with every change of its Secret.
func TestATokenIsInspectedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inspections := map[string]int{}
		inspect := func(compact string) (token.Inspection, error) {
			inspections[compact]++
			if compact == "of another issuer" {
				return token.Inspection{}, token.ErrIssuer
			}
			facts := token.Inspection{UnverifiedClaims: token.LegacyClaims{Namespace: "team", SecretName: "s", ServiceAccountName: "robot"}}
			if compact != "of no known key" {
				facts.VerifiedBy = "key"
			}
			return facts, nil
		}
		client := fake.NewClientset(testkit.Secret("team/s", testkit.WithAccount("robot"), testkit.WithData("token", "first")))
		secrets, err := TokenSecrets(client, inspect)
		mustNil(t, err)
		defer testkit.Start(t.Context(), t, testkit.Informer(secrets))()
		synctest.Wait()
		update := func(compact string, opts ...testkit.Option) {
			t.Helper()
			_, err := client.CoreV1().Secrets("team").Update(t.Context(), testkit.Secret("team/s", append(opts, testkit.WithData("token", compact))...), metav1.UpdateOptions{})
			mustNil(t, err)
			synctest.Wait()
			cached, _ := Get(secrets, "team/s")
			want := NewTokenSecret(testkit.Secret("team/s", append(opts, testkit.WithData("token", compact))...), inspect)
			inspections[compact]--
			if diff := cmp.Diff(want.Token, cached.Token); diff != "" {
				t.Errorf("token (-want +got):\n%s", diff)
			}
		}
		robot := testkit.WithAccount("robot")
		update("first", robot, testkit.WithLabel(token.LastUsedLabel, "2026-11-27"))
		update("second", robot)
		update("second", robot, testkit.WithLabel("app", "ci"))
		update("second", testkit.WithAccount("other")) // is it its own now?
		update("of no known key", robot)
		update("of no known key", robot, testkit.WithLabel("app", "ci")) // there may be more keys now
		update("of another issuer", robot)
		update("second", robot)
		mustNil(t, client.CoreV1().Secrets("team").Delete(t.Context(), "s", metav1.DeleteOptions{}))
		synctest.Wait()
		if diff := cmp.Diff(map[string]int{"first": 1, "second": 3, "of no known key": 2, "of another issuer": 1}, inspections); diff != "" {
			t.Errorf("inspections (-want +got):\n%s", diff)
		}
	})
}
