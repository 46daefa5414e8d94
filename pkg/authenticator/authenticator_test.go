package authenticator_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	testingclock "k8s.io/utils/clock/testing"

	"github.com/sakeeper/sakeeper/pkg/authenticator"
	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/token"
)

const clusterIssuer = "https://issuer"

func keySet(vector string, more ...string) func() *keys.Set {
	set := testkit.Keys(vector, more...)
	return func() *keys.Set { return set }
}

// boundToken is a token as an API server issues it, with more claims in kubernetes.io.
func boundToken(t testing.TB, set func() *keys.Set, iss, more string) string {
	t.Helper()
	now := testkit.Instant().Unix()
	payload := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil,
		`{"aud":["api"],"exp":%d,"iat":%d,"iss":%q,"jti":"id-1","kubernetes.io":{"namespace":"team","serviceaccount":{"name":"robot","uid":"u-robot"}%s},"nbf":%d,"sub":"system:serviceaccount:team:robot"}`,
		now+3600, now, iss, more, now))
	segments, err := token.NewSigner(set).Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	return segments.Header + "." + payload + "." + segments.Signature
}

func legacyToken(t testing.TB, set func() *keys.Set) string {
	t.Helper()
	compact, err := token.NewSigner(set).SignLegacy(t.Context(), token.LegacyClaims{Namespace: "team", SecretName: "robot-token", ServiceAccountName: "robot", ServiceAccountUID: "u-robot"})
	if err != nil {
		t.Fatal(err)
	}
	return compact
}

func whole() state {
	return state{
		Accounts: map[string]object{"team/robot": {UID: "u-robot"}}, Pods: map[string]object{"team/app": {UID: "u-app"}},
		Secrets: map[string]object{"team/robot-token": {UID: "u-secret"}}, Nodes: map[string]object{"node-1": {UID: "u-node"}},
		ValidatingWebhooks: map[string]object{"check": {UID: "u-check"}}, MutatingWebhooks: map[string]object{"change": {UID: "u-change"}},
	}
}

func config(objects authenticator.Objects) authenticator.Config {
	return authenticator.Config{
		Keys: keySet("p256", "rsa2048"), Issuers: []string{clusterIssuer}, Audiences: []string{"api"}, Objects: objects, Clock: testingclock.NewFakePassiveClock(testkit.Instant()),
	}
}

func newAuthenticator(t testing.TB, cfg authenticator.Config) *authenticator.Authenticator {
	t.Helper()
	a, err := authenticator.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func user(extra ...string) authenticationv1.UserInfo {
	info := authenticationv1.UserInfo{
		Username: "system:serviceaccount:team:robot", UID: "u-robot", Groups: []string{"system:serviceaccounts", "system:serviceaccounts:team", "system:authenticated"},
		Extra: map[string]authenticationv1.ExtraValue{},
	}
	for _, pair := range extra {
		name, value, _ := strings.Cut(pair, ":")
		info.Extra["authentication.kubernetes.io/"+name] = authenticationv1.ExtraValue{value}
	}
	return info
}

const pod, secret, node = `,"pod":{"name":"app","uid":"u-app"}`, `,"secret":{"name":"robot-token","uid":"u-secret"}`, `,"node":{"name":"node-1","uid":"u-node"}`

// The claims of tokens that are bound to webhook configurations.
const (
	validating = `,"validatingwebhookconfiguration":{"name":"check","uid":"u-check"}`
	mutating   = `,"mutatingwebhookconfiguration":{"name":"change","uid":"u-change"}`
	attested   = `,"attestations":{"admissionReviewAPIGroups":["apps"]}`
)

// withAPIGroups adds what a token for a webhook configuration attests.
func withAPIGroups(info authenticationv1.UserInfo) authenticationv1.UserInfo {
	info.Extra["attestation.authentication.kubernetes.io/admissionReviewAPIGroups"] = authenticationv1.ExtraValue{"apps"}
	return info
}

// TestAuthenticate has one token of each kind; hack/differential compares the answers for
// thousands of others with those of kube-apiserver.
func TestAuthenticate(t *testing.T) {
	legacy := legacyToken(t, keySet("p256"))
	stored := func(change func(*state)) state {
		s := whole()
		s.Secrets["team/robot-token"] = object{UID: "u-secret", Token: legacy}
		if change != nil {
			change(&s)
		}
		return s
	}
	cases := map[string]struct {
		in        string
		state     state
		audiences []string
		want      authenticationv1.UserInfo
		err       error
	}{
		"a token for an account": {in: boundToken(t, keySet("p256"), clusterIssuer, ""), state: whole(), want: user("credential-id:JTI=id-1")},
		"a token for a pod":      {in: boundToken(t, keySet("rsa2048"), clusterIssuer, pod+node), state: whole(), want: user("credential-id:JTI=id-1", "pod-name:app", "pod-uid:u-app", "node-name:node-1", "node-uid:u-node")},
		"a token for a pod whose node is gone": {
			in: boundToken(t, keySet("p256"), clusterIssuer, pod+strings.Replace(node, "node-1", "gone", 1)), state: whole(),
			want: user("credential-id:JTI=id-1", "pod-name:app", "pod-uid:u-app", "node-name:gone", "node-uid:u-node"),
		},
		"a token for a Secret": {in: boundToken(t, keySet("p256"), clusterIssuer, secret), state: whole(), want: user("credential-id:JTI=id-1")},
		"a token for a node":   {in: boundToken(t, keySet("p256"), clusterIssuer, node), state: whole(), want: user("credential-id:JTI=id-1", "node-name:node-1", "node-uid:u-node")},
		"a legacy token":       {in: legacy, state: stored(nil), want: user()},
		"a token for a validating webhook configuration": {
			in: boundToken(t, keySet("p256"), clusterIssuer, validating+attested), state: whole(),
			want: withAPIGroups(user("credential-id:JTI=id-1", "validatingwebhookconfiguration-name:check", "validatingwebhookconfiguration-uid:u-check")),
		},
		"a token for a mutating webhook configuration": {
			in: boundToken(t, keySet("p256"), clusterIssuer, mutating+attested), state: whole(),
			want: withAPIGroups(user("credential-id:JTI=id-1", "mutatingwebhookconfiguration-name:change", "mutatingwebhookconfiguration-uid:u-change")),
		},
		"a validating webhook configuration that is gone": {
			in: boundToken(t, keySet("p256"), clusterIssuer, strings.Replace(validating, `"check"`, `"other"`, 1)+attested), state: whole(), err: authenticator.ErrGone,
		},
		"a validating webhook configuration with a new UID": {
			in: boundToken(t, keySet("p256"), clusterIssuer, strings.Replace(validating, "u-check", "u-old", 1)+attested), state: whole(), err: authenticator.ErrGone,
		},
		"a mutating webhook configuration with a new UID": {
			in: boundToken(t, keySet("p256"), clusterIssuer, strings.Replace(mutating, "u-change", "u-old", 1)+attested), state: whole(), err: authenticator.ErrGone,
		},
		"a webhook configuration of the other kind": {
			in: boundToken(t, keySet("p256"), clusterIssuer, strings.Replace(mutating, "mutating", "validating", 1)+attested), state: whole(), err: authenticator.ErrGone,
		},
		"a webhook configuration without attestation":       {in: boundToken(t, keySet("p256"), clusterIssuer, validating), state: whole(), err: token.ErrClaims},
		"an attestation without webhook configuration":      {in: boundToken(t, keySet("p256"), clusterIssuer, attested), state: whole(), want: user("credential-id:JTI=id-1")},
		"an object of an unknown kind":                      {in: boundToken(t, keySet("p256"), clusterIssuer, `,"deployment":{"name":"d","uid":"u"}`), state: whole(), err: token.ErrUnknownKind},
		"an object of an unknown kind beside a pod":         {in: boundToken(t, keySet("p256"), clusterIssuer, pod+`,"deployment":{"name":"d","uid":"u"}`), state: whole(), err: token.ErrUnknownKind},
		"a member of a known kind, written in another case": {in: boundToken(t, keySet("p256"), clusterIssuer, `,"Pod":{"name":"app","uid":"u-app"}`), state: whole(), err: token.ErrUnknownKind},
		"a member that is no reference, and may become one": {in: boundToken(t, keySet("p256"), clusterIssuer, `,"more":null`), state: whole(), err: token.ErrUnknownKind},
		"no token":                                    {in: "", err: token.ErrMalformed},
		"a token of a megabyte":                       {in: strings.Repeat("A", 1<<20), err: token.ErrMalformed},
		"JSON serialization":                          {in: `{"payload":"e30","signatures":[]}`, err: token.ErrMalformed},
		"another issuer":                              {in: boundToken(t, keySet("p256"), "https://other", ""), err: token.ErrIssuer},
		"an unknown key":                              {in: boundToken(t, keySet("p521"), clusterIssuer, ""), err: token.ErrUnknownKey},
		"another audience":                            {in: boundToken(t, keySet("p256"), clusterIssuer, ""), state: whole(), audiences: []string{"vault"}, err: authenticator.ErrAudience},
		"a pod that is gone":                          {in: boundToken(t, keySet("p256"), clusterIssuer, `,"pod":{"name":"other","uid":"u-app"}`), state: whole(), err: authenticator.ErrGone},
		"an account with a new UID":                   {in: boundToken(t, keySet("p256"), clusterIssuer, ""), state: state{Accounts: map[string]object{"team/robot": {UID: "u-new"}}}, err: authenticator.ErrGone},
		"a legacy token of an account with a new UID": {in: legacy, state: stored(func(s *state) { s.Accounts["team/robot"] = object{UID: "u-new"} }), err: authenticator.ErrGone},
		"a legacy token not of its Secret":            {in: legacy, state: stored(func(s *state) { s.Secrets["team/robot-token"] = object{Token: "other"} }), err: authenticator.ErrStored},
		"a legacy token that was marked": {
			in: legacy, state: stored(func(s *state) {
				s.Secrets["team/robot-token"] = object{Token: legacy, InvalidSince: "2026-01-01"}
			}), err: authenticator.ErrInvalidated,
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			response, err := newAuthenticator(t, config(tc.state)).Authenticate(t.Context(), tc.in, tc.audiences)
			if !errors.Is(err, tc.err) || (err == nil) != (tc.err == nil) {
				t.Errorf("got error %v, want %v", err, tc.err)
			}
			if diff := cmp.Diff(tc.want, response.User); diff != "" {
				t.Errorf("user (-want +got):\n%s", diff)
			}
			if err != nil && tc.in != "" && strings.Contains(err.Error(), tc.in[:min(10, len(tc.in))]) {
				t.Errorf("the error quotes the token: %v", err)
			}
		})
	}
}

// TestTimeHasAMinuteOfLeeway on both sides.
func TestTimeHasAMinuteOfLeeway(t *testing.T) {
	compact := boundToken(t, keySet("p256"), clusterIssuer, "")
	for after, want := range map[time.Duration]error{
		-61 * time.Second: token.ErrNotYet, -59 * time.Second: nil, 0: nil, time.Hour + 59*time.Second: nil, time.Hour + 61*time.Second: token.ErrExpired,
	} {
		cfg := config(whole())
		cfg.Clock = testingclock.NewFakePassiveClock(testkit.Instant().Truncate(time.Second).Add(after))
		if _, err := newAuthenticator(t, cfg).Authenticate(t.Context(), compact, nil); !errors.Is(err, want) || (err == nil) != (want == nil) {
			t.Errorf("%v after it was issued: %v, want %v", after, err, want)
		}
	}
}

func TestLegacyTokensThatAreUsed(t *testing.T) {
	legacy := legacyToken(t, keySet("p256"))
	for name, tc := range map[string]struct {
		secret object
		want   int
	}{
		"one that is accepted":  {object{Token: legacy}, 1},
		"one that was marked":   {object{Token: legacy, InvalidSince: "x"}, 1},
		"one not of its Secret": {object{Token: "other"}, 0},
	} {
		cfg, used := config(state{Accounts: whole().Accounts, Secrets: map[string]object{"team/robot-token": tc.secret}}), 0
		cfg.Used = func(authenticator.Secret) { used++ }
		_, _ = newAuthenticator(t, cfg).Authenticate(t.Context(), legacy, nil)
		if used != tc.want {
			t.Errorf("%s: used %d times, want %d", name, used, tc.want)
		}
	}
}

func FuzzAuthenticate(f *testing.F) {
	f.Add(boundToken(f, keySet("p256"), clusterIssuer, pod+node))
	f.Add(legacyToken(f, keySet("p256")))
	f.Add("a.b.c")
	a, signed := newAuthenticator(f, config(whole())), boundToken(f, keySet("p256"), clusterIssuer, "")
	f.Add(signed)
	f.Fuzz(func(t *testing.T, compact string) {
		response, err := a.Authenticate(t.Context(), compact, nil)
		if (err == nil) != (response.User.Username != "") {
			t.Errorf("user %q, error %v", response.User.Username, err)
		}
	})
}

// deletedPod is a cluster whose pod has a deletion timestamp.
type deletedPod struct {
	state

	at time.Time
}

func (d deletedPod) Pod(context.Context, string, string) (authenticator.Object, error) {
	return &metav1.ObjectMeta{Namespace: "team", Name: "app", UID: "u-app", DeletionTimestamp: &metav1.Time{Time: d.at}}, nil
}

func TestThePodOfATokenMayHaveAMinuteToShutDown(t *testing.T) {
	for ago, want := range map[time.Duration]error{30 * time.Second: nil, time.Minute: nil, 61 * time.Second: authenticator.ErrGone} {
		a := newAuthenticator(t, config(deletedPod{whole(), testkit.Instant().Add(-ago)}))
		if _, err := a.Authenticate(t.Context(), boundToken(t, keySet("p256"), clusterIssuer, pod), nil); !errors.Is(err, want) || (err == nil) != (want == nil) {
			t.Errorf("deleted %v ago: got %v, want %v", ago, err, want)
		}
	}
}
