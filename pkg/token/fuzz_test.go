package token_test

import (
	"errors"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/sakeeper/sakeeper/pkg/token"
)

func FuzzVerifyLegacy(f *testing.F) {
	set := newSet(f, "rsa2048", "p256")
	verifier, signer := token.NewVerifier(always(set)), token.NewSigner(always(set))
	f.Add(mustSignLegacy(f, set))
	f.Add(mustSignLegacy(f, newSet(f, "p256")))
	f.Add(mustSignLegacy(f, newSet(f, "p384")))
	f.Add(signJOSE(f, jose.RS256, mustSigner(f, "rsa2048"), ""))
	f.Add(signRS256(f, `{"alg":"RS256"}`, `{"iss":"kubernetes/serviceaccount"}`))
	f.Add(b64(`{"alg":"none"}`) + "." + b64(builderPayload) + ".")
	f.Add("")
	f.Fuzz(func(t *testing.T, compact string) {
		claims, err := verifier.VerifyLegacy(compact)
		if err != nil {
			if claims != (token.LegacyClaims{}) {
				t.Error("claims came with the error")
			}
			for _, sentinel := range []error{token.ErrMalformed, token.ErrIssuer, token.ErrUnknownKey, token.ErrSignature, token.ErrClaims} {
				if errors.Is(err, sentinel) {
					return
				}
			}
			t.Errorf("error %q is none of the package", err)
			return
		}
		again, err := signer.SignLegacy(t.Context(), claims)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := verifier.VerifyLegacy(again); err != nil || got != claims {
			t.Errorf("claims %v were read back as %v, error %v", claims, got, err)
		}
	})
}
