package token_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// Load keys, sign a legacy token with the signing key, and verify it with all keys.
func Example() {
	set, err := keys.Files{PrivateKeyFile: "../keys/testdata/insecure-p256-sec1.pem"}.Load()
	if err != nil {
		fmt.Println(err)
		return
	}
	// In a program that runs on, this is the Get of a keys.Loader.
	current := func() *keys.Set { return set }

	compact, err := token.NewSigner(current).SignLegacy(context.Background(), token.LegacyClaims{
		Namespace:          "team-a",
		SecretName:         "builder-token",
		ServiceAccountName: "builder",
		ServiceAccountUID:  "0a1b2c3d-0000-4000-8000-000000000001",
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	verifier := token.NewVerifier(current)
	claims, err := verifier.VerifyLegacy(compact)
	fmt.Println(claims.Subject(), err)
	_, err = verifier.VerifyLegacy("something else")
	fmt.Println(errors.Is(err, token.ErrMalformed))
	// Output:
	// system:serviceaccount:team-a:builder <nil>
	// true
}

// Verify a token with the JWKS that an API server publishes.
func ExampleVerifier_jwks() {
	published, err := keys.Files{PrivateKeyFile: "../keys/testdata/insecure-p256-sec1.pem"}.Load()
	if err != nil {
		fmt.Println(err)
		return
	}
	compact, err := token.NewSigner(func() *keys.Set { return published }).SignLegacy(context.Background(), token.LegacyClaims{
		Namespace: "team-a", SecretName: "builder-token", ServiceAccountName: "builder", ServiceAccountUID: "0a1b2c3d-0000-4000-8000-000000000001",
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	document, err := json.Marshal(published.JWKS()) // as in the answer to GET /openid/v1/jwks
	if err != nil {
		fmt.Println(err)
		return
	}

	var jwks jose.JSONWebKeySet
	if err := json.Unmarshal(document, &jwks); err != nil {
		fmt.Println(err)
		return
	}
	var verification []keys.PublicKey
	for _, jwk := range jwks.Keys {
		key, err := keys.NewPublicKey(jwk.Key)
		if err != nil {
			fmt.Println(err)
			return
		}
		verification = append(verification, key.WithID(jwk.KeyID))
	}
	set := keys.NewVerificationSet(verification...)
	claims, err := token.NewVerifier(func() *keys.Set { return set }).Verify(compact, token.LegacyIssuer)
	fmt.Println(claims.ServiceAccount.Name, err)
	// Output: builder <nil>
}

// A token of an hour is renewed after 42 to 48 minutes, depending on the seed.
func ExampleValidity_RenewAt() {
	issued := time.Date(2026, time.January, 2, 15, 0, 0, 0, time.UTC)
	validity := token.Validity{Issued: issued, Expires: issued.Add(time.Hour)}
	renewAt := validity.RenewAt("0a1b2c3d-0000-4000-8000-000000000001").Sub(issued)
	fmt.Println(renewAt >= 42*time.Minute && renewAt <= 48*time.Minute)
	// Output: true
}
