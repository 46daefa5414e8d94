package token

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/cryptosigner"
	josejson "github.com/go-jose/go-jose/v4/json"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/sakeeper/sakeeper/pkg/keys"
)

// Signer signs tokens with the current signing key: after a rotation the next token is signed
// with the new key. It is safe for concurrent use.
type Signer struct {
	keys func() *keys.Set
	// cachedSigner has the JOSE signers of the last key: to make one, the public key must be
	// encoded, which is too expensive for every token.
	cachedSigner atomic.Pointer[keySigner]
	cache        *Cache
}

type keySigner struct {
	id string
	// legacy writes a header with alg and kid, as kube-controller-manager does; typed one with
	// alg, kid and typ, as kube-apiserver requires.
	legacy, typed jose.Signer
}

// NewSigner returns a signer. It calls current for every token, which must return a set whose
// signing key can sign; otherwise signing fails.
func NewSigner(current func() *keys.Set) *Signer { return &Signer{keys: current} }

// NewSignerWithCache is NewSigner of a signer that adds the legacy tokens that it signs to
// cache.
func NewSignerWithCache(cache *Cache, current func() *keys.Set) *Signer {
	return &Signer{keys: current, cache: cache}
}

// SignLegacy returns the legacy token with claims c in compact serialization. Its header has
// only alg and kid, as in-tree. All fields of c are required.
func (s *Signer) SignLegacy(_ context.Context, c LegacyClaims) (string, error) {
	if err := c.validate(); err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	signer, err := s.currentKey()
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	compact, err := jwt.Signed(signer.legacy).Claims(c.payload()).Serialize()
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	s.cache.add(compact, Inspection{UnverifiedClaims: c, VerifiedBy: signer.id})
	return compact, nil
}

// Segments are the header and the signature of a token in compact serialization, as they are
// in the token.
type Segments struct{ Header, Signature string }

// Sign signs a payload of the caller, in the form that it has in a token: unpadded base64url.
// The header has only alg, kid and typ=JWT. A payload that is not an object of claims with
// exp, is of the legacy issuer, or is longer than 64 KiB is an error that wraps [ErrPayload].
func (s *Signer) Sign(payload string) (Segments, error) { return s.sign(payload, checkClaims) }

// SignLegacyPayload is Sign for exactly the payloads that [LegacyPayload] returns, byte for
// byte. Any other payload is an error that wraps [ErrPayload].
func (s *Signer) SignLegacyPayload(payload string) (Segments, error) {
	return s.sign(payload, checkLegacyClaims)
}

// ErrPayload is returned for a payload that must not be signed.
var ErrPayload = errors.New("payload is not acceptable")

func (s *Signer) sign(payload string, check func(claims []byte) error) (Segments, error) {
	if len(payload) > maxLength {
		return Segments{}, fmt.Errorf("%w: it is longer than %d bytes", ErrPayload, maxLength)
	}
	claims, err := base64.RawURLEncoding.Strict().DecodeString(payload)
	if err != nil || strings.ContainsAny(payload, "\r\n") {
		return Segments{}, fmt.Errorf("%w: it is not base64url without padding", ErrPayload)
	}
	if err := check(claims); err != nil {
		return Segments{}, fmt.Errorf("%w: %w", ErrPayload, err)
	}
	signer, err := s.currentKey()
	if err != nil {
		return Segments{}, fmt.Errorf("sign token: %w", err)
	}
	signed, err := signer.typed.Sign(claims)
	if err != nil {
		return Segments{}, fmt.Errorf("sign token: %w", err)
	}
	compact, err := signed.CompactSerialize()
	if err != nil {
		return Segments{}, fmt.Errorf("sign token: %w", err)
	}
	parts := strings.Split(compact, ".")
	return Segments{Header: parts[0], Signature: parts[2]}, nil
}

// checkClaims returns an error unless claims is one JSON object with exp: a token without
// expiry would outlive its key. Names are read as verifiers read them: with their case, and
// without duplicates.
func checkClaims(claims []byte) error {
	var found struct {
		Issuer  string   `json:"iss"`
		Expires *float64 `json:"exp"`
	}
	if !bytes.HasPrefix(claims, []byte("{")) || josejson.Unmarshal(claims, &found) != nil {
		return errors.New("it is not a JSON object of claims")
	}
	if found.Issuer == LegacyIssuer {
		return fmt.Errorf("tokens of the issuer %s are signed on the legacy socket", LegacyIssuer)
	}
	if found.Expires == nil {
		return errors.New("it has no claim exp")
	}
	return nil
}

// checkLegacyClaims returns an error unless claims has exactly the bytes that this package
// makes of the same claims: no other member, no duplicate, no other order.
func checkLegacyClaims(claims []byte) error {
	var found legacyPayload
	if json.Unmarshal(claims, &found) != nil {
		return errors.New("it is not a JSON object of legacy claims")
	}
	c := found.claims()
	if err := c.validate(); err != nil {
		return err
	}
	if exact, err := json.Marshal(c.payload()); err != nil || !bytes.Equal(exact, claims) { //nolint:gosec // the name of a Secret is not secret
		return errors.New("it is not exactly the claims of a legacy token")
	}
	return nil
}

// LegacyPayload returns the payload for [Signer.SignLegacyPayload], in unpadded base64url. All
// fields of c are required.
func LegacyPayload(c LegacyClaims) (string, error) {
	if err := c.validate(); err != nil {
		return "", err
	}
	claims, err := json.Marshal(c.payload()) //nolint:gosec // the name of a Secret is not secret
	return base64.RawURLEncoding.EncodeToString(claims), err
}

// currentKey returns the JOSE signers of the current signing key.
func (s *Signer) currentKey() (*keySigner, error) {
	key := s.keys().Signing()
	if cached := s.cachedSigner.Load(); cached != nil && cached.id == key.PublicKey().ID() {
		return cached, nil
	}
	if !key.CanSign() {
		return nil, errors.New("no key can sign")
	}
	jwk := key.PublicKey().JWK()
	jwk.Key = cryptosigner.Opaque(key)
	signingKey := jose.SigningKey{Algorithm: key.PublicKey().Algorithm(), Key: jwk}
	signer := &keySigner{id: key.PublicKey().ID()}
	var err error
	if signer.legacy, err = jose.NewSigner(signingKey, nil); err != nil {
		return nil, err
	}
	if signer.typed, err = jose.NewSigner(signingKey, (&jose.SignerOptions{}).WithType("JWT")); err != nil {
		return nil, err
	}
	s.cachedSigner.Store(signer)
	return signer, nil
}
