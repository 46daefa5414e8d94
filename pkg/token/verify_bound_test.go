package token_test

import (
	"errors"
	"testing"

	"github.com/sakeeper/sakeeper/pkg/token"
)

// TestVerifyChecksTheClaimsOfABoundToken verifies tokens with a good signature.
func TestVerifyChecksTheClaimsOfABoundToken(t *testing.T) {
	const issuer = "https://issuer.example"
	private := func(members string) string {
		return `{"iss":"` + issuer + `","kubernetes.io":{"namespace":"team-a","serviceaccount":{"name":"builder","uid":"u"}` + members + `}}`
	}
	const webhook = `,"validatingwebhookconfiguration":{"name":"w","uid":"u"}`
	cases := map[string]struct {
		in, inIssuer string
		want         error
	}{
		"known members":                    {in: private(`,"pod":{"name":"p","uid":"u"},"warnafter":1`), inIssuer: issuer},
		"an unknown member":                {in: private(`,"deployment":{"name":"d","uid":"u"}`), inIssuer: issuer, want: token.ErrUnknownKind},
		"another issuer than was expected": {in: private(""), inIssuer: "https://other.example", want: token.ErrIssuer},
		"a webhook configuration with its attestation": {
			in: private(webhook + `,"attestations":{"admissionReviewAPIGroups":["apps"]}`), inIssuer: issuer,
		},
		"a webhook configuration with another attestation": {in: private(webhook + `,"attestations":{"more":["apps"]}`), inIssuer: issuer, want: token.ErrClaims},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			claims, err := token.NewVerifier(always(newSet(t, "rsa2048"))).Verify(signRS256(t, `{"alg":"RS256"}`, tc.in), tc.inIssuer)
			if !errors.Is(err, tc.want) || (err == nil) != (tc.want == nil) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
			if err == nil && claims.ServiceAccount.Name != "builder" {
				t.Errorf("got %v", claims)
			}
		})
	}
}
