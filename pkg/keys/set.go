package keys

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

// Set is one signing key and every key that is still verified, the signing key
// among them. It is immutable and safe for concurrent use.
type Set struct {
	signing      PrivateKey
	verification []PublicKey
	byID         map[string]PublicKey
	id           string
}

// NewSet makes a set. A key that is given more than once is kept once.
func NewSet(signing PrivateKey, verification ...PublicKey) *Set {
	s := &Set{signing: signing, byID: map[string]PublicKey{}}
	for _, key := range append([]PublicKey{signing.PublicKey()}, verification...) {
		if _, ok := s.byID[key.ID()]; ok {
			continue
		}
		s.byID[key.ID()] = key
		s.verification = append(s.verification, key)
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

// ID stands for the set: the same one for sets that sign and verify with the same keys,
// in whatever order those were given.
func (s *Set) ID() string { return s.id }

// Signing is the key that signs.
func (s *Set) Signing() PrivateKey { return s.signing }

// Verification is all keys that verify, the signing key's public half first.
func (s *Set) Verification() []PublicKey { return slices.Clone(s.verification) }

// Lookup finds a verification key by its id.
func (s *Set) Lookup(id string) (PublicKey, bool) {
	key, ok := s.byID[id]
	return key, ok
}

// JWKS is the set's public keys as RFC 7517 publishes them.
func (s *Set) JWKS() jose.JSONWebKeySet {
	var set jose.JSONWebKeySet
	for _, key := range s.verification {
		set.Keys = append(set.Keys, key.JWK())
	}
	return set
}

// Equal tells whether both sets sign and verify with the same keys.
func (s *Set) Equal(other *Set) bool { return s.id == other.id }
