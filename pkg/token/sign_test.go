package token_test

import (
	"crypto"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/token"
)

func TestSignLegacyWithEveryKindOfKey(t *testing.T) {
	cases := map[string]struct {
		in            string
		wantAlgorithm string
	}{
		"RSA":   {"rsa2048", "RS256"},
		"P-256": {"p256", "ES256"},
		"P-384": {"p384", "ES384"},
		"P-521": {"p521", "ES512"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			set := newSet(t, tc.in)
			compact := mustSignLegacy(t, set)
			header, payload := mustDecode(t, compact)
			wantHeader := fmt.Sprintf(`{"alg":%q,"kid":%q}`, tc.wantAlgorithm, set.Signing().PublicKey().ID())
			if diff := cmp.Diff(wantHeader, header); diff != "" {
				t.Errorf("header (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(builderPayload, payload); diff != "" {
				t.Errorf("payload (-want +got):\n%s", diff)
			}
			got, err := token.NewVerifier(always(set)).VerifyLegacy(compact)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(builder, got); diff != "" {
				t.Errorf("verified claims (-want +got):\n%s", diff)
			}
		})
	}
}

// The file is what JWTTokenGenerator of kube-controller-manager 1.36 makes with the
// same key for the same claims. RSA signatures are deterministic.
func TestSignLegacyMakesTheBytesOfKubeControllerManager(t *testing.T) {
	want, err := os.ReadFile("testdata/insecure-in-tree-token.txt")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.TrimSpace(string(want)), mustSignLegacy(t, newSet(t, "rsa2048"))); diff != "" {
		t.Errorf("token (-want +got):\n%s", diff)
	}
}

func TestSignLegacyRequiresAllClaims(t *testing.T) {
	without := func(change func(*token.LegacyClaims)) token.LegacyClaims {
		claims := builder
		change(&claims)
		return claims
	}
	cases := map[string]struct {
		in   token.LegacyClaims
		want string
	}{
		"no claims":               {token.LegacyClaims{}, "sign token: namespace claim is missing"},
		"no namespace":            {without(func(c *token.LegacyClaims) { c.Namespace = "" }), "sign token: namespace claim is missing"},
		"no secret name":          {without(func(c *token.LegacyClaims) { c.SecretName = "" }), "sign token: secret name claim is missing"},
		"no service account name": {without(func(c *token.LegacyClaims) { c.ServiceAccountName = "" }), "sign token: service account name claim is missing"},
		"no service account uid":  {without(func(c *token.LegacyClaims) { c.ServiceAccountUID = "" }), "sign token: service account uid claim is missing"},
	}
	signer := token.NewSigner(always(newSet(t, "p256")))
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			compact, err := signer.SignLegacy(t.Context(), tc.in)
			if err == nil || err.Error() != tc.want {
				t.Errorf("error %v, want %q", err, tc.want)
			}
			if compact != "" {
				t.Error("a token came with the error")
			}
		})
	}
}

// brokenSigner has a public key and no way to sign, like an HSM that cannot be reached.
type brokenSigner struct{ crypto.Signer }

var errBoom = errors.New("boom")

func (brokenSigner) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) { return nil, errBoom }

func TestSignLegacyReturnsTheErrorOfTheKey(t *testing.T) {
	for _, vector := range []string{"rsa2048", "p256"} {
		set := keys.NewSet(mustKey(t, brokenSigner{mustSigner(t, vector)}))
		compact, err := token.NewSigner(always(set)).SignLegacy(t.Context(), builder)
		if !errors.Is(err, errBoom) || compact != "" {
			t.Errorf("%s: token %q, error %v, want %v", vector, compact, err, errBoom)
		}
	}
}

func TestSignLegacyFollowsARotation(t *testing.T) {
	var current atomic.Pointer[keys.Set]
	signer := token.NewSigner(current.Load)
	for _, vector := range []string{"rsa2048", "p256", "p256", "p521", "rsa2048"} {
		set := newSet(t, vector)
		current.Store(set)
		compact, err := signer.SignLegacy(t.Context(), builder)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := token.NewVerifier(always(set)).VerifyLegacy(compact); err != nil {
			t.Errorf("the token after the switch to %s is not one of its key: %v", vector, err)
		}
	}
}

func TestSignLegacyIsSafeForConcurrentUse(t *testing.T) {
	const workers, tokens = 8, 20
	sets := []*keys.Set{newSet(t, "p256", "p384"), newSet(t, "p384", "p256")}
	var current atomic.Pointer[keys.Set]
	current.Store(sets[0])
	signer, verifier := token.NewSigner(current.Load), token.NewVerifier(current.Load)
	var wg sync.WaitGroup
	for worker := range workers {
		wg.Go(func() {
			for i := range tokens {
				current.Store(sets[(worker+i)%len(sets)])
				compact, err := signer.SignLegacy(t.Context(), builder)
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := verifier.VerifyLegacy(compact); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// signs has the functions that sign a payload of the caller.
var signs = map[string]func(*token.Signer, string) (token.Segments, error){
	"any":    (*token.Signer).Sign,
	"legacy": (*token.Signer).SignLegacyPayload,
}

func encode(claims string) string { return base64.RawURLEncoding.EncodeToString([]byte(claims)) }

func TestWhichPayloadsAreSigned(t *testing.T) {
	legacy, err := token.LegacyPayload(builder)
	if err != nil {
		t.Fatal(err)
	}
	exact, err := base64.RawURLEncoding.DecodeString(legacy)
	if err != nil {
		t.Fatal(err)
	}
	changed := func(old, replacement string) string {
		t.Helper()
		text := strings.Replace(string(exact), old, replacement, 1)
		if text == string(exact) {
			t.Fatalf("%q is not in %s", old, exact)
		}
		return encode(text)
	}
	bound := encode(`{"iss":"https://issuer","exp":1900000000,"sub":"me"}`)
	const notLegacy = "payload is not acceptable: it is not exactly the claims of a legacy token"
	cases := map[string]struct {
		in         string
		any, exact string // the errors
	}{
		"a bound token":               {in: bound, exact: "payload is not acceptable: namespace claim is missing"},
		"a legacy token":              {in: legacy, any: "payload is not acceptable: tokens of the issuer kubernetes/serviceaccount are signed on the legacy socket"},
		"a token without end":         {in: encode(`{"iss":"https://issuer"}`), any: "payload is not acceptable: it has no claim exp", exact: "payload is not acceptable: namespace claim is missing"},
		"an end that is no number":    {in: encode(`{"exp":"soon"}`), any: "payload is not acceptable: it is not a JSON object of claims", exact: "payload is not acceptable: namespace claim is missing"},
		"a list":                      {in: encode(`[{"exp":1}]`), any: "payload is not acceptable: it is not a JSON object of claims", exact: "payload is not acceptable: it is not a JSON object of legacy claims"},
		"two objects":                 {in: encode(`{"exp":1}{"exp":1}`), any: "payload is not acceptable: it is not a JSON object of claims", exact: "payload is not acceptable: it is not a JSON object of legacy claims"},
		"nothing":                     {in: "", any: "payload is not acceptable: it is not a JSON object of claims", exact: "payload is not acceptable: it is not a JSON object of legacy claims"},
		"null":                        {in: encode("null"), any: "payload is not acceptable: it is not a JSON object of claims", exact: "payload is not acceptable: namespace claim is missing"},
		"not base64":                  {in: "{}", any: "payload is not acceptable: it is not base64url without padding", exact: "payload is not acceptable: it is not base64url without padding"},
		"with padding":                {in: base64.URLEncoding.EncodeToString([]byte(`{"exp":12}`)), any: "payload is not acceptable: it is not base64url without padding", exact: "payload is not acceptable: it is not base64url without padding"},
		"with a line break":           {in: bound[:8] + "\n" + bound[8:], any: "payload is not acceptable: it is not base64url without padding", exact: "payload is not acceptable: it is not base64url without padding"},
		"too long":                    {in: strings.Repeat("A", 64<<10+1), any: "payload is not acceptable: it is longer than 65536 bytes", exact: "payload is not acceptable: it is longer than 65536 bytes"},
		"a legacy token with an end":  {in: changed("}", `,"exp":1900000000}`), any: "payload is not acceptable: tokens of the issuer kubernetes/serviceaccount are signed on the legacy socket", exact: notLegacy},
		"one of another issuer":       {in: changed(`"kubernetes/serviceaccount"`, `"https://issuer"`), any: "payload is not acceptable: it has no claim exp", exact: notLegacy},
		"one of another user":         {in: changed(`"sub":"system:serviceaccount:`, `"sub":"system:serviceaccount:x`), any: "payload is not acceptable: tokens of the issuer kubernetes/serviceaccount are signed on the legacy socket", exact: notLegacy},
		"one with a claim twice":      {in: changed("{", `{"iss":"kubernetes/serviceaccount",`), any: "payload is not acceptable: it is not a JSON object of claims", exact: notLegacy},
		"an issuer of another case":   {in: encode(`{"iss":"kubernetes/serviceaccount","Iss":"https://issuer","exp":1}`), any: "payload is not acceptable: tokens of the issuer kubernetes/serviceaccount are signed on the legacy socket", exact: "payload is not acceptable: namespace claim is missing"},
		"an end of another case":      {in: encode(`{"iss":"https://issuer","Exp":1900000000}`), any: "payload is not acceptable: it has no claim exp", exact: "payload is not acceptable: namespace claim is missing"},
		"one with space":              {in: changed("{", `{ `), any: "payload is not acceptable: tokens of the issuer kubernetes/serviceaccount are signed on the legacy socket", exact: notLegacy},
		"one with groups":             {in: changed("}", `,"groups":["system:masters"]}`), any: "payload is not acceptable: tokens of the issuer kubernetes/serviceaccount are signed on the legacy socket", exact: notLegacy},
		"one whose Secret is missing": {in: changed(builder.SecretName, ""), any: "payload is not acceptable: tokens of the issuer kubernetes/serviceaccount are signed on the legacy socket", exact: "payload is not acceptable: secret name claim is missing"},
	}
	set := newSet(t, "p256")
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			for way, want := range map[string]string{"any": tc.any, "legacy": tc.exact} {
				segments, err := signs[way](token.NewSigner(always(set)), tc.in)
				got := ""
				if err != nil {
					got = err.Error()
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s (-want +got):\n%s", way, diff)
				}
				if wrong := (err == nil) != (segments.Signature != ""); wrong || (err != nil && !errors.Is(err, token.ErrPayload)) {
					t.Errorf("%s: segments %v, error %v", way, segments, err)
				}
			}
		})
	}
}

// TestSegmentsMakeAToken with each kind of key.
func TestSegmentsMakeAToken(t *testing.T) {
	legacy, err := token.LegacyPayload(builder)
	if err != nil {
		t.Fatal(err)
	}
	for _, vector := range []string{"rsa2048", "p256", "p384", "p521"} {
		t.Run(vector, func(t *testing.T) {
			set := newSet(t, vector)
			segments, err := token.NewSigner(always(set)).SignLegacyPayload(legacy)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := token.NewVerifier(always(set)).VerifyLegacy(segments.Header + "." + legacy + "." + segments.Signature); err != nil || got != builder {
				t.Errorf("got %v, error %v", got, err)
			}
			header, err := base64.RawURLEncoding.DecodeString(segments.Header)
			if err != nil {
				t.Fatal(err)
			}
			key := set.Signing().PublicKey()
			if diff := cmp.Diff(fmt.Sprintf(`{"alg":%q,"kid":%q,"typ":"JWT"}`, key.Algorithm(), key.ID()), string(header)); diff != "" {
				t.Errorf("header (-want +got):\n%s", diff)
			}
		})
	}
}

func TestSigningFailsWithoutThePrivateKey(t *testing.T) {
	for name, set := range map[string]*keys.Set{
		"a set that verifies": keys.NewVerificationSet(newSet(t, "p256").Verification()...),
		"a key of another":    keys.NewSet(keys.PublicOnly(newSet(t, "p256").Signing().PublicKey())),
	} {
		if compact, err := token.NewSigner(always(set)).SignLegacy(t.Context(), builder); err == nil || err.Error() != "sign token: no key can sign" {
			t.Errorf("%s: signed %d bytes, error %v", name, len(compact), err)
		}
	}
}
