package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"slices"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

const testCA = "the CA"

// testbed is a view in which all is right, with what users have made.
type testbed struct {
	view
	model

	key *ecdsa.PrivateKey
}

func newTestbed(t *testing.T) *testbed {
	t.Helper()
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b := &testbed{key: signer, view: view{
		now:        time.Now(),
		namespaces: []corev1.Namespace{{ObjectMeta: metav1.ObjectMeta{Name: "n"}}},
		accounts:   map[string]corev1.ServiceAccount{},
		secrets:    map[string]corev1.Secret{},
		configMaps: map[string]corev1.ConfigMap{"n/" + api.RootCAConfigMap: {Data: map[string]string{"ca.crt": testCA}}},
		keys:       keySet{JSONWebKeySet: jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{KeyID: "k", Key: signer.Public(), Algorithm: "ES256"}}}, signing: "k"},
	}}
	account := corev1.ServiceAccount{ObjectMeta: meta("default", "account"), Secrets: []corev1.ObjectReference{{Name: "token"}}}
	b.accounts["n/default"] = account
	b.setAccount("n/default", thing{UID: "account", Refers: []string{"token"}})
	b.secrets["n/token"] = b.tokenSecret(t, "account", "token")
	b.setSecret("n/token", thing{UID: "token", Account: "n/default", AccountUID: "account"})
	b.secrets["n/managed"] = b.managedSecret(t, time.Now().Add(9*time.Minute))
	b.setSecret("n/managed", thing{UID: "managed", Account: "n/default", AccountUID: "account"})
	b.secrets["n/foreign-0"] = corev1.Secret{ObjectMeta: meta("foreign-0", "foreign"), Type: "Opaque", Data: map[string][]byte{"a": []byte("b")}}
	b.setSecret("n/foreign-0", thing{UID: "foreign", Type: "Opaque", Content: map[string]string{"a": "b"}})
	return b
}

func meta(name string, uid types.UID) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: "n", Name: name, UID: uid, Annotations: map[string]string{}}
}

func (b *testbed) sign(t *testing.T, claims any) []byte {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: b.key}, (&jose.SignerOptions{}).WithHeader("kid", "k"))
	if err != nil {
		t.Fatal(err)
	}
	token, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return []byte(token)
}

func (b *testbed) tokenSecret(t *testing.T, uid, name string) corev1.Secret {
	t.Helper()
	s := corev1.Secret{ObjectMeta: meta("token", "token"), Type: corev1.SecretTypeServiceAccountToken}
	s.Annotations[corev1.ServiceAccountNameKey], s.Annotations[corev1.ServiceAccountUIDKey] = "default", "account"
	s.Data = map[string][]byte{"ca.crt": []byte(testCA), "namespace": []byte("n"), "token": b.sign(t, map[string]any{
		"sub": "system:serviceaccount:n:default", "kubernetes.io/serviceaccount/namespace": "n",
		"kubernetes.io/serviceaccount/secret.name": name, "kubernetes.io/serviceaccount/service-account.uid": uid,
	})}
	return s
}

func (b *testbed) managedSecret(t *testing.T, expires time.Time) corev1.Secret {
	t.Helper()
	s := corev1.Secret{ObjectMeta: meta("managed", "managed"), Type: corev1.SecretTypeOpaque}
	s.Labels = map[string]string{api.TokenLabel: api.TokenManaged}
	s.Annotations[api.ServiceAccountAnnotation], s.Annotations[api.ExpiresAtAnnotation] = "default", expires.UTC().Format(time.RFC3339)
	s.Data = map[string][]byte{"ca.crt": []byte(testCA), "token": b.sign(t, map[string]any{
		"sub": "system:serviceaccount:n:default", "exp": expires.Unix(),
		"kubernetes.io": map[string]any{"serviceaccount": map[string]any{"uid": "account"}, "secret": map[string]any{"uid": "managed"}},
	})}
	return s
}

func TestCompare(t *testing.T) {
	tests := map[string]struct {
		spoil func(*testing.T, *testbed)
		want  string
	}{
		"all is right":               {spoil: func(*testing.T, *testbed) {}},
		"a default account is gone":  {func(_ *testing.T, b *testbed) { b.namespaces[0].Name = "other" }, "account"},
		"another CA":                 {func(_ *testing.T, b *testbed) { b.configMaps["n/"+api.RootCAConfigMap].Data["ca.crt"] = "x" }, "root-ca"},
		"a token of another account": {func(t *testing.T, b *testbed) { b.secrets["n/token"] = b.tokenSecret(t, "former", "token") }, "token"},
		"a token of another Secret":  {func(t *testing.T, b *testbed) { b.secrets["n/token"] = b.tokenSecret(t, "account", "other") }, "token"},
		"a token that is made up":    {func(_ *testing.T, b *testbed) { b.secrets["n/token"].Data["token"] = []byte("x") }, "token"},
		"a token of a former key":    {func(_ *testing.T, b *testbed) { b.keys.signing = "newer" }, "key"},
		"a key is not published":     {func(_ *testing.T, b *testbed) { b.keys.Keys = nil }, "token"},
		"a former CA in a Secret":    {func(_ *testing.T, b *testbed) { b.secrets["n/token"].Data["ca.crt"] = []byte("x") }, "content"},
		"another namespace":          {func(_ *testing.T, b *testbed) { b.secrets["n/token"].Data["namespace"] = []byte("x") }, "content"},
		"a former UID":               {func(_ *testing.T, b *testbed) { b.secrets["n/token"].Annotations[corev1.ServiceAccountUIDKey] = "x" }, "owner"},
		"the account is gone": {func(_ *testing.T, b *testbed) {
			delete(b.accounts, "n/default")
			b.forgetAccount("n/default")
		}, "orphan"},
		"an account was deleted":      {func(_ *testing.T, b *testbed) { b.Accounts["n/gone"] = thing{UID: "x"} }, "lost-account"},
		"a Secret was deleted":        {func(_ *testing.T, b *testbed) { delete(b.secrets, "n/token") }, "lost-secret"},
		"a Secret was replaced":       {func(_ *testing.T, b *testbed) { b.Secrets["n/token"] = thing{UID: "x"} }, "lost-secret"},
		"a reference was removed":     {func(_ *testing.T, b *testbed) { b.accounts["n/default"].Secrets[0].Name = "x" }, "reference"},
		"a reference stays":           {func(_ *testing.T, b *testbed) { b.accounts["n/default"].Secrets[0].Name = "default-token-bcdfg" }, "stale-reference"},
		"a foreign Secret changed":    {func(_ *testing.T, b *testbed) { b.secrets["n/foreign-0"].Data["token"] = []byte("x") }, "foreign"},
		"a foreign Secret has notes":  {func(_ *testing.T, b *testbed) { b.secrets["n/foreign-0"].Annotations[api.ProblemAnnotation] = "x" }, "foreign"},
		"a managed token is missing":  {func(_ *testing.T, b *testbed) { delete(b.secrets["n/managed"].Data, "token") }, "managed"},
		"a managed token has expired": {func(t *testing.T, b *testbed) { b.secrets["n/managed"] = b.managedSecret(t, time.Now()) }, "managed-expiry"},
		"a managed Secret lies about it": {func(_ *testing.T, b *testbed) {
			b.secrets["n/managed"].Annotations[api.ExpiresAtAnnotation] = "x"
		}, "managed-expiry"},
		"a rotation is not done": {func(_ *testing.T, b *testbed) { b.secrets["n/managed"].Annotations[api.RotateAnnotation] = "x" }, "managed"},
		"a managed token of an account that is gone": {func(_ *testing.T, b *testbed) {
			b.secrets["n/managed"].Annotations[api.ServiceAccountAnnotation] = "gone"
		}, "managed-orphan"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := newTestbed(t)
			tt.spoil(t, b)
			found := b.compare(&b.model, testCA)
			if has := slices.ContainsFunc(found, func(v violation) bool { return v.kind == tt.want }); has != (tt.want != "") || tt.want == "" && len(found) > 0 {
				t.Errorf("want %q, got %v", tt.want, found)
			}
		})
	}
}

// The name of a Secret may be given to another one.
func TestAReferenceToADeletedSecretMayGo(t *testing.T) {
	for name, forget := range map[string]func(*model){
		"the Secret was deleted":  func(m *model) { m.forgetSecret("n/token") },
		"its account was deleted": func(m *model) { m.forgetAccount("n/owner") },
	} {
		t.Run(name, func(t *testing.T) {
			b := newTestbed(t)
			owned := b.Secrets["n/token"]
			owned.Account = "n/owner"
			b.setSecret("n/token", owned)
			b.accounts["n/default"].Secrets[0].Name = "x"
			forget(&b.model)
			b.setSecret("n/token", thing{UID: "token"})
			if found := b.compare(&b.model, testCA); len(found) > 0 {
				t.Errorf("%v", found)
			}
		})
	}
}

func TestASecretIsNotAdopted(t *testing.T) {
	b, filled := newTestbed(t), map[string]string{}
	for range 2 {
		if f := b.adopted(filled); len(f) > 0 {
			t.Errorf("all is right: %v", f)
		}
	}
	b.secrets["n/token"].Annotations[corev1.ServiceAccountUIDKey] = "another"
	if f := b.adopted(filled); len(f) != 1 {
		t.Errorf("want one violation, got %v", f)
	}
}

func TestInspect(t *testing.T) {
	began := time.Now()
	request := func(verb, resource, name, source string, second int) controlplane.Request {
		r := controlplane.Request{Verb: verb, SourceIPs: []string{source}, Received: began.Add(time.Duration(second) * time.Second)}
		r.Staged, r.Response.Code, r.User.Username = r.Received, 200, controlplane.Username
		r.Object.Resource, r.Object.Name = resource, name
		r.Deletion.Preconditions.UID = "uid"
		return r
	}
	lease := func(source string, second int) controlplane.Request {
		return request("update", "leases", api.ControllersLease, source, second)
	}
	refused := lease("b", 2)
	refused.Response.Code = 409
	unconditional := request("delete", "secrets", "s", "a", 2)
	unconditional.Deletion.Preconditions.UID = ""
	tests := map[string]struct {
		in   []controlplane.Request
		want string
	}{
		"the leader writes":           {in: []controlplane.Request{lease("a", 1), request("update", "secrets", "s", "a", 2), request("delete", "secrets", "s", "a", 3)}},
		"a standby writes":            {[]controlplane.Request{lease("a", 1), request("update", "secrets", "s", "b", 2)}, "leader"},
		"a former leader writes":      {[]controlplane.Request{lease("b", 1), lease("a", 2), request("update", "secrets", "s", "b", 3)}, "leader"},
		"a standby reads":             {in: []controlplane.Request{lease("a", 1), request("list", "secrets", "", "b", 2)}},
		"a standby asks for the lead": {in: []controlplane.Request{lease("a", 1), refused, request("update", "secrets", "s", "a", 3)}},
		"it was the leader's when it came": {in: []controlplane.Request{
			lease("b", 1), lease("a", 3), request("update", "secrets", "s", "b", 2),
		}},
		"a deletion without a UID":  {[]controlplane.Request{lease("a", 1), unconditional}, "precondition"},
		"a write to what is others": {[]controlplane.Request{lease("a", 1), request("patch", "secrets", "foreign-0", "a", 2)}, "foreign"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			found := (&checker{}).inspect(tt.in, time.Time{})
			if got := len(found); got != min(1, len(tt.want)) || got > 0 && found[0].kind != tt.want {
				t.Errorf("want %q, got %v", tt.want, found)
			}
		})
	}
}

func TestWhatIsSecretIsFoundInALog(t *testing.T) {
	for text, want := range map[string]int{"I1201 nothing": 0, "token=eyJhbGciOiJS": 1, "panic: no": 1, "PRIVATE KEY": 1} {
		s := newSecrecy()
		_, _ = logWriter{"p", s}.Write([]byte(text))
		if got := len(s.violations()); got != want {
			t.Errorf("%s: %d violations", text, got)
		}
	}
}
