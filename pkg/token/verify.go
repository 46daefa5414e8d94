package token

import (
	"errors"
	"strings"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/sakeeper/sakeeper/pkg/keys"
)

// Why a token is refused. Clients get one opaque message; these are for us.
var (
	// ErrMalformed: not a JWT in compact serialization, or signed with an
	// algorithm that no service-account key uses.
	ErrMalformed = errors.New("malformed token")
	// ErrIssuer: the token says that somebody else issued it.
	ErrIssuer = errors.New("token of another issuer")
	// ErrUnknownKey: the token names a key that is not in the set.
	ErrUnknownKey = errors.New("token signed by an unknown key")
	// ErrSignature: no key of the set verifies the signature.
	ErrSignature = errors.New("token signature is wrong")
	// ErrClaims: the signature is good, the claims are not those of a legacy token.
	ErrClaims = errors.New("token claims are wrong")
)

// maxLength bounds what is parsed. Headers of requests, where tokens travel, are
// smaller by far.
const maxLength = 64 << 10

// Verifier checks tokens against the keys of the moment. It is safe for
// concurrent use.
type Verifier struct {
	keys  func() *keys.Set
	cache *Cache
}

// NewVerifier makes a verifier over the set that current returns at each call.
func NewVerifier(current func() *keys.Set) *Verifier { return &Verifier{keys: current} }

// NewVerifierWith takes from recent what it knows, in Inspect.
func NewVerifierWithCache(recent *Cache, current func() *keys.Set) *Verifier {
	return &Verifier{keys: current, cache: recent}
}

// VerifyLegacy checks, in this order: shape and algorithm, issuer, key,
// signature, claims. It says nothing of whether the token is alive. Errors are,
// or wrap, the sentinels of this package.
func (v *Verifier) VerifyLegacy(compact string) (LegacyClaims, error) {
	issuer, err := UnverifiedIssuer(compact)
	switch {
	case err != nil:
		return LegacyClaims{}, err
	case issuer != LegacyIssuer:
		return LegacyClaims{}, ErrIssuer
	}
	claims, err := v.Verify(compact, LegacyIssuer)
	if err != nil {
		return LegacyClaims{}, err
	}
	return *claims.Legacy, nil
}

// Facts are what a legacy token says of itself and who vouches for that. They stay
// true whatever becomes of the keys.
type Inspection struct {
	// UnverifiedClaims stand in the token; nobody vouches for them while VerifiedBy is
	// empty.
	UnverifiedClaims LegacyClaims
	// VerifiedBy is the id of the key that verifies the signature, empty when none of
	// the keys known at that moment does.
	VerifiedBy string
	// TriedWith is the id of the set of those keys ([keys.Set.ID]).
	TriedWith string
}

// Inspect reads a legacy token whoever signed it. Its errors are [ErrMalformed]
// and [ErrIssuer]: it is not a legacy token.
func (v *Verifier) Inspect(compact string) (Inspection, error) {
	set := v.keys()
	if facts, ok := v.cache.get(compact); ok {
		return facts, nil
	}
	parsed, unverified, err := parseLegacyUnverified(compact)
	if err != nil {
		return Inspection{}, err
	}
	if unverified.Issuer != LegacyIssuer {
		return Inspection{}, ErrIssuer
	}
	facts := Inspection{UnverifiedClaims: unverified.claims(), TriedWith: set.ID()}
	if key, err := verifyingKey(set, parsed); err == nil && key != nil {
		facts.VerifiedBy = key.ID()
	}
	return facts, nil
}

// UnverifiedKeyID is the kid that a token names, empty where it names none or is not
// a token.
func UnverifiedKeyID(compact string) string {
	parsed, err := jwt.ParseSigned(compact, keys.Algorithms())
	if err != nil || len(parsed.Headers) == 0 {
		return ""
	}
	return parsed.Headers[0].KeyID
}

// verifyingKey is the key that verifies the signature, nil when none of those that
// may have made it does.
func verifyingKey(set *keys.Set, parsed *jwt.JSONWebToken) (*keys.PublicKey, error) {
	candidates, err := candidates(set, parsed.Headers[0])
	if err != nil {
		return nil, err
	}
	for _, key := range candidates {
		if err := parsed.Claims(key.Key()); err == nil {
			return &key, nil
		}
	}
	return nil, nil //nolint:nilnil // no key is an answer
}

// candidates are the keys that may have signed: the one that kid names, or all
// when there is no kid. The header's algorithm must be the key's own, so that no
// key is ever used in a way it was not made for (RFC 8725, section 3.1).
func candidates(set *keys.Set, header jose.Header) ([]keys.PublicKey, error) {
	pool := set.Verification()
	if header.KeyID != "" {
		key, ok := set.Lookup(header.KeyID)
		if !ok {
			return nil, ErrUnknownKey
		}
		pool = []keys.PublicKey{key}
	}
	var fitting []keys.PublicKey
	for _, key := range pool {
		if string(key.Algorithm()) == header.Algorithm {
			fitting = append(fitting, key)
		}
	}
	return fitting, nil
}

// acceptable bounds what is parsed. The decoder would pass over line breaks, with which no
// client could send a token.
func wellFormed(compact string) bool {
	return len(compact) <= maxLength && !strings.ContainsAny(compact, "\r\n")
}

func parse(compact string) (*jwt.JSONWebToken, error) {
	if !wellFormed(compact) {
		return nil, ErrMalformed
	}
	parsed, err := jwt.ParseSigned(compact, keys.Algorithms())
	if err != nil {
		return nil, ErrMalformed
	}
	return parsed, nil
}

func parseLegacyUnverified(compact string) (*jwt.JSONWebToken, legacyPayload, error) {
	parsed, err := parse(compact)
	if err != nil {
		return nil, legacyPayload{}, err
	}
	var payload legacyPayload
	if err := parsed.UnsafeClaimsWithoutVerification(&payload); err != nil {
		return nil, legacyPayload{}, ErrMalformed
	}
	return parsed, payload, nil
}
