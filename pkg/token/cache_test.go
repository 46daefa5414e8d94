package token_test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/token"
)

func TestRecent(t *testing.T) {
	claims := token.LegacyClaims{Namespace: "n", SecretName: "s", ServiceAccountName: "a", ServiceAccountUID: "u"}
	first, other := testkit.Keys("p256"), testkit.Keys("rsa2048")
	now := first
	current := func() *keys.Set { return now }
	recent := token.NewCache(10)
	verifier := token.NewVerifierWithCache(recent, current)
	inspect := func(compact, want string) {
		t.Helper()
		facts, err := verifier.Inspect(compact)
		if err != nil || facts.VerifiedBy != want || facts.UnverifiedClaims != claims {
			t.Errorf("facts %+v, want verified by %q: %v", facts, want, err)
		}
	}
	sign := func(recent *token.Cache, set *keys.Set, claims token.LegacyClaims) string {
		t.Helper()
		compact, err := token.NewSignerWithCache(recent, func() *keys.Set { return set }).SignLegacy(t.Context(), claims)
		if err != nil {
			t.Fatal(err)
		}
		return compact
	}
	id := func(set *keys.Set) string { return set.Signing().PublicKey().ID() }

	own := sign(recent, first, claims)
	now = other // which could not verify it
	inspect(own, id(first))
	seen := sign(nil, first, claims)
	inspect(seen, "")
	now = first // which can
	inspect(seen, id(first))
	now = other
	inspect(seen, "") // only what was signed is remembered
	for i := range 10 {
		foreign := sign(recent, first, token.LegacyClaims{Namespace: "n", SecretName: strconv.Itoa(i), ServiceAccountName: "a", ServiceAccountUID: "u"})
		inspect(own[:strings.LastIndex(own, ".")]+foreign[strings.LastIndex(foreign, "."):], "") // the same claims, and a signature of others
	}
	inspect(own, "") // forgotten
}
