package keys

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

// Set is one signing key and all keys that verify, the signing key among them. It is immutable
// and safe for concurrent use.
type Set struct {
	signing      PrivateKey
	verification []PublicKey
	byID         map[string]PublicKey
	// legacy has the ids of the keys that verify but are not in the JWKS.
	legacy map[string]bool
	id     string
}

// NewSet returns a set that signs with signing, and verifies with it and with verification.
// Duplicates are dropped.
func NewSet(signing PrivateKey, verification ...PublicKey) *Set {
	return newSet(signing, append([]PublicKey{signing.PublicKey()}, verification...), nil)
}

// NewVerificationSet returns a set that cannot sign: [Set.Signing] is the zero key.
func NewVerificationSet(verification ...PublicKey) *Set {
	return newSet(PrivateKey{}, verification, nil)
}

// WithLegacy returns the set with more keys, which verify and are not in the JWKS. A key that
// is in the set already stays in the JWKS: without the signing key in it, no client could
// verify new tokens.
func (s *Set) WithLegacy(keys ...PublicKey) *Set {
	return newSet(s.signing, s.Published(), append(slices.DeleteFunc(s.Verification(), s.InDiscovery), keys...))
}

func newSet(signing PrivateKey, published, legacy []PublicKey) *Set {
	s := &Set{signing: signing, byID: map[string]PublicKey{}, legacy: map[string]bool{}}
	for i, key := range slices.Concat(published, legacy) {
		if _, ok := s.byID[key.ID()]; ok {
			continue
		}
		s.byID[key.ID()] = key
		s.verification = append(s.verification, key)
		if i >= len(published) {
			s.legacy[key.ID()] = true
		}
	}
	ids := []string{signing.PublicKey().ID()}
	for _, key := range s.verification {
		ids = append(ids, key.ID())
	}
	slices.Sort(ids[1:])
	sum := sha256.Sum256([]byte(strings.Join(ids, " ")))
	s.id = hex.EncodeToString(sum[:16])
	return s
}

// ID identifies the signing key and the keys that verify, regardless of their order and of
// which of them are in the JWKS.
func (s *Set) ID() string { return s.id }

// Signing returns the key that signs, or the zero key in a set that only verifies.
func (s *Set) Signing() PrivateKey { return s.signing }

// Verification returns all keys that verify: first the signing key, last the legacy keys.
func (s *Set) Verification() []PublicKey { return slices.Clone(s.verification) }

// Published returns the keys in the JWKS, first the signing key.
func (s *Set) Published() []PublicKey {
	return slices.DeleteFunc(s.Verification(), func(key PublicKey) bool { return !s.InDiscovery(key) })
}

// InDiscovery returns true if the JWKS has the key, which must be in the set.
func (s *Set) InDiscovery(key PublicKey) bool { return !s.legacy[key.ID()] }

// Lookup returns the key that verifies and has the id; false if there is none.
func (s *Set) Lookup(id string) (PublicKey, bool) {
	key, ok := s.byID[id]
	return key, ok
}

// JWKS returns the published keys as a JSON Web Key Set (RFC 7517).
func (s *Set) JWKS() jose.JSONWebKeySet {
	var set jose.JSONWebKeySet
	for _, key := range s.Published() {
		set.Keys = append(set.Keys, key.JWK())
	}
	return set
}

// Equal returns true if both sets sign and verify with the same keys and have the same JWKS.
func (s *Set) Equal(other *Set) bool {
	if s.id != other.id {
		return false
	}
	return !slices.ContainsFunc(s.verification, func(key PublicKey) bool { return s.InDiscovery(key) != other.InDiscovery(key) })
}
