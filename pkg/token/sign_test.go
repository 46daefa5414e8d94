package token_test

import (
	"crypto"
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

// brokenSigner has a public key and no way to sign, like an HSM out of reach.
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
