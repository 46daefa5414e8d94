package token_test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/token"
)

func TestCache(t *testing.T) {
	claims := token.LegacyClaims{Namespace: "n", SecretName: "s", ServiceAccountName: "a", ServiceAccountUID: "u"}
	first, other := testkit.Keys("p256"), testkit.Keys("rsa2048")
	now := first
	current := func() *keys.Set { return now }
	cache := token.NewCache(10)
	verifier := token.NewVerifierWithCache(cache, current)
	inspect := func(compact, want string) {
		t.Helper()
		inspection, err := verifier.Inspect(compact)
		if err != nil || inspection.VerifiedBy != want || inspection.UnverifiedClaims != claims {
			t.Errorf("inspection %+v, want verified by %q: %v", inspection, want, err)
		}
	}
	sign := func(cache *token.Cache, set *keys.Set, claims token.LegacyClaims) string {
		t.Helper()
		compact, err := token.NewSignerWithCache(cache, func() *keys.Set { return set }).SignLegacy(t.Context(), claims)
		if err != nil {
			t.Fatal(err)
		}
		return compact
	}
	id := func(set *keys.Set) string { return set.Signing().PublicKey().ID() }

	own := sign(cache, first, claims)
	now = other // whose keys do not verify it
	inspect(own, id(first))
	seen := sign(nil, first, claims)
	inspect(seen, "")
	now = first // whose keys verify it
	inspect(seen, id(first))
	now = other
	inspect(seen, "") // only signed tokens are cached
	for i := range 10 {
		foreign := sign(cache, first, token.LegacyClaims{Namespace: "n", SecretName: strconv.Itoa(i), ServiceAccountName: "a", ServiceAccountUID: "u"})
		inspect(own[:strings.LastIndex(own, ".")]+foreign[strings.LastIndex(foreign, "."):], "") // with the signature of another token
	}
	inspect(own, "") // evicted
}
