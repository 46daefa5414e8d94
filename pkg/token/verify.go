package token

import (
	"errors"
	"strings"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/sakeeper/sakeeper/pkg/keys"
)

// Reasons why a token is refused. They are for logs: a client should get one message for all.
var (
	// ErrMalformed is returned for a text that is not a JWT in compact serialization, or has an
	// algorithm that is not in [keys.Algorithms].
	ErrMalformed = errors.New("malformed token")
	// ErrIssuer is returned for a token of another issuer.
	ErrIssuer = errors.New("token of another issuer")
	// ErrUnknownKey is returned for a token whose kid is not in the set.
	ErrUnknownKey = errors.New("token signed by an unknown key")
	// ErrSignature is returned if no key of the set verifies the signature.
	ErrSignature = errors.New("token signature is wrong")
	// ErrClaims is returned if the signature is good, but the claims are not those of a legacy
	// token, or those of a token for a webhook configuration without its attestation.
	ErrClaims = errors.New("token claims are wrong")
	// ErrUnknownKind is returned if the signature is good, but the private claims of a bound
	// token have a member that this package does not know. It may name an object whose deletion
	// revokes the token, which could not be noticed.
	ErrUnknownKind = errors.New("token is bound to an object of an unknown kind")
)

// maxLength bounds what is parsed. Tokens are sent in HTTP headers, which are much smaller.
const maxLength = 64 << 10

// Verifier verifies tokens with the current keys. It is safe for concurrent use.
type Verifier struct {
	keys  func() *keys.Set
	cache *Cache
}

// NewVerifier returns a verifier. It calls current for every token.
func NewVerifier(current func() *keys.Set) *Verifier { return &Verifier{keys: current} }

// NewVerifierWithCache is NewVerifier of a verifier whose Inspect uses cache.
func NewVerifierWithCache(cache *Cache, current func() *keys.Set) *Verifier {
	return &Verifier{keys: current, cache: cache}
}

// Verify checks form and algorithm, key, signature, issuer and, for [LegacyIssuer], that all
// claims of a legacy token are there, else that no private claim is unknown. It does not check
// the time ([Claims.CheckTime]), the audience, and whether the objects in the claims exist.
// Errors are, or wrap, [ErrMalformed], [ErrIssuer], [ErrUnknownKey], [ErrSignature],
// [ErrClaims] or [ErrUnknownKind].
func (v *Verifier) Verify(compact, issuer string) (Claims, error) {
	parsed, err := parse(compact)
	if err != nil {
		return Claims{}, err
	}
	candidates, err := candidates(v.keys(), parsed.Headers[0])
	if err != nil {
		return Claims{}, err
	}
	var public jwt.Claims
	var bound boundPrivate
	var members boundMembers
	var legacy legacyPrivate
	claims := []any{&public, &bound, &members}
	if issuer == LegacyIssuer {
		claims = []any{&public, &legacy}
	}
	for _, key := range candidates {
		if parsed.Claims(key.Key(), claims...) != nil { // reads claims only after the signature was verified
			continue
		}
		if public.Issuer != issuer {
			return Claims{}, ErrIssuer
		}
		if issuer == LegacyIssuer {
			return legacy.verified(public)
		}
		return bound.verified(public, members)
	}
	if parsed.UnsafeClaimsWithoutVerification(claims...) != nil {
		return Claims{}, ErrMalformed // parsed.Claims returned the same error
	}
	return Claims{}, ErrSignature
}

// VerifyLegacy checks, in this order: form and algorithm, issuer, key, signature, claims. It
// does not check whether the Secret and the ServiceAccount exist. Errors are, or wrap,
// [ErrMalformed], [ErrIssuer], [ErrUnknownKey], [ErrSignature] or [ErrClaims].
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

// Inspection is the result of [Verifier.Inspect]. It remains true when the keys change.
type Inspection struct {
	// UnverifiedClaims are the claims of the token. They are verified only if VerifiedBy is
	// not empty.
	UnverifiedClaims LegacyClaims
	// VerifiedBy is the id of the key that verified the signature; empty if none of the keys
	// at that time does.
	VerifiedBy string
	// TriedWith is the id of the set of those keys ([keys.Set.ID]). It is empty if the result
	// is from the cache.
	TriedWith string
}

// Inspect reads the claims of a legacy token, also if no known key verifies it. It returns
// [ErrMalformed] or [ErrIssuer] if compact is not a legacy token.
func (v *Verifier) Inspect(compact string) (Inspection, error) {
	set := v.keys()
	if cached, ok := v.cache.get(compact); ok {
		return cached, nil
	}
	parsed, unverified, err := parseLegacyUnverified(compact)
	if err != nil {
		return Inspection{}, err
	}
	if unverified.Issuer != LegacyIssuer {
		return Inspection{}, ErrIssuer
	}
	inspection := Inspection{UnverifiedClaims: unverified.claims(), TriedWith: set.ID()}
	if key, err := verifyingKey(set, parsed); err == nil && key != nil {
		inspection.VerifiedBy = key.ID()
	}
	return inspection, nil
}

// UnverifiedKeyID returns the kid of a token; empty if it has none or is not a token.
func UnverifiedKeyID(compact string) string {
	parsed, err := jwt.ParseSigned(compact, keys.Algorithms())
	if err != nil || len(parsed.Headers) == 0 {
		return ""
	}
	return parsed.Headers[0].KeyID
}

// verifyingKey returns the key that verifies the signature, or nil if none does.
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
	return nil, nil //nolint:nilnil // no key is not an error
}

// candidates returns the keys that may have signed: the one with the kid of the header, or all
// keys if it has no kid. Only keys with the algorithm of the header are returned (RFC 8725,
// section 3.1).
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

// wellFormed returns true if compact may be parsed. Line breaks are refused, because the
// decoder would ignore them.
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
