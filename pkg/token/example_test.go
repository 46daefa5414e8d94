package token_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// A token is signed with the key of the moment and verified with all keys of the set.
func Example() {
	set, err := keys.Files{PrivateKeyFile: "../keys/testdata/insecure-p256-sec1.pem"}.Load()
	if err != nil {
		fmt.Println(err)
		return
	}
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
