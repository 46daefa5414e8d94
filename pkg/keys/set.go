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
	// legacy are the ids of those of verification that discovery does not show.
	legacy map[string]bool
	id     string
}

// NewSet makes a set. A key that is given more than once is kept once.
func NewSet(signing PrivateKey, verification ...PublicKey) *Set {
	return newSet(signing, append([]PublicKey{signing.PublicKey()}, verification...), nil)
}

// NewVerificationSet makes a set that signs nothing: [Set.Signing] is the zero key.
func NewVerificationSet(verification ...PublicKey) *Set {
	return newSet(PrivateKey{}, verification, nil)
}

// WithLegacy is the set with more keys, which verify and which discovery does not
// show. A key that is in the set already stays what it is: the signing key is always
// shown, because nobody could verify what it signs.
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

// ID stands for what the set signs and verifies with, in whatever order the keys were
// given, and whether or not discovery shows them.
func (s *Set) ID() string { return s.id }

// Signing is the key that signs. It is the zero key, whose id is empty, in a set that
// only verifies.
func (s *Set) Signing() PrivateKey { return s.signing }

// Verification is all keys that verify: the signing key's public half first, the
// legacy ones last.
func (s *Set) Verification() []PublicKey { return slices.Clone(s.verification) }

// Published is the keys that discovery shows, the signing key's public half first.
func (s *Set) Published() []PublicKey {
	return slices.DeleteFunc(s.Verification(), func(key PublicKey) bool { return !s.InDiscovery(key) })
}

// InDiscovery tells whether discovery shows a key of the set.
func (s *Set) InDiscovery(key PublicKey) bool { return !s.legacy[key.ID()] }

// Lookup finds a verification key by its id.
func (s *Set) Lookup(id string) (PublicKey, bool) {
	key, ok := s.byID[id]
	return key, ok
}

// JWKS is the set's published keys as RFC 7517 writes them.
func (s *Set) JWKS() jose.JSONWebKeySet {
	var set jose.JSONWebKeySet
	for _, key := range s.Published() {
		set.Keys = append(set.Keys, key.JWK())
	}
	return set
}

// Equal tells whether both sets sign and verify with the same keys, and show the same.
func (s *Set) Equal(other *Set) bool {
	if s.id != other.id {
		return false
	}
	return !slices.ContainsFunc(s.verification, func(key PublicKey) bool { return s.InDiscovery(key) != other.InDiscovery(key) })
}
