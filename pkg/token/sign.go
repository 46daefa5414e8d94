package token

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/cryptosigner"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/sakeeper/sakeeper/pkg/keys"
)

// Signer signs with the signing key of the moment: after a rotation the next
// token carries the new key. It is safe for concurrent use.
type Signer struct {
	keys func() *keys.Set
	// cached is the JOSE signer of the key used last; making one costs an encoding
	// of the public key, which must not be paid per token.
	cached atomic.Pointer[keySigner]
}

type keySigner struct {
	id   string
	jose jose.Signer
}

// NewSigner makes a signer over the set that current returns at each call.
func NewSigner(current func() *keys.Set) *Signer { return &Signer{keys: current} }

// SignLegacy makes the legacy token for c in compact serialization. Its header
// has alg and kid and nothing else, as in-tree. All fields of c are required.
func (s *Signer) SignLegacy(_ context.Context, c LegacyClaims) (string, error) {
	if err := c.complete(); err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	signer, err := s.current()
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	compact, err := jwt.Signed(signer).Claims(c.payload()).Serialize()
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	return compact, nil
}

func (s *Signer) current() (jose.Signer, error) {
	key := s.keys().Signing()
	if cached := s.cached.Load(); cached != nil && cached.id == key.PublicKey().ID() {
		return cached.jose, nil
	}
	jwk := key.PublicKey().JWK()
	jwk.Key = cryptosigner.Opaque(key)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: key.PublicKey().Algorithm(), Key: jwk}, nil)
	if err != nil {
		return nil, err
	}
	s.cached.Store(&keySigner{id: key.PublicKey().ID(), jose: signer})
	return signer, nil
}
