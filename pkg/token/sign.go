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

// Signer signs with the signing key of the moment: after a rotation the next
// token carries the new key. It is safe for concurrent use.
type Signer struct {
	keys func() *keys.Set
	// cached are the JOSE signers of the key used last; making one costs an encoding
	// of the public key, which must not be paid per token.
	cachedSigner atomic.Pointer[keySigner]
	cache        *Cache
}

type keySigner struct {
	id string
	// legacy makes headers of alg and kid, as kube-controller-manager does; typed ones
	// of alg, kid and typ, as kube-apiserver wants them.
	legacy, typed jose.Signer
}

// NewSigner makes a signer over the set that current returns at each call.
func NewSigner(current func() *keys.Set) *Signer { return &Signer{keys: current} }

// NewSignerWith also lets recent know what it signs.
func NewSignerWithCache(recent *Cache, current func() *keys.Set) *Signer {
	return &Signer{keys: current, cache: recent}
}

// SignLegacy makes the legacy token for c in compact serialization. Its header
// has alg and kid and nothing else, as in-tree. All fields of c are required.
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

// Segments are the first and the last of the three parts of a token in compact
// serialization.
type Segments struct{ Header, Signature string }

// Sign signs a payload that somebody else made, in the form that it has in a token. The
// header has alg, kid and typ=JWT and nothing else. A payload that is no claims object
// is an error that wraps [ErrPayload].
func (s *Signer) Sign(payload string) (Segments, error) { return s.sign(payload, checkClaims) }

// SignLegacyPayload is Sign for payloads of exactly a legacy token, to the byte what
// [LegacyPayload] makes; anything else is an error that wraps [ErrPayload].
func (s *Signer) SignLegacyPayload(payload string) (Segments, error) {
	return s.sign(payload, checkLegacyClaims)
}

// ErrPayload is why something is not signed: it is not what may be signed.
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

// checkClaims wants one JSON object with an end: a token that lives for ever would
// outlive its key. Names are read as verifiers read them: with their case, and once.
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

// checkLegacyClaims wants the very bytes that are made here of the same claims: no other
// member, no second one of a name, no other order.
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

// LegacyPayload is the payload for [Signer.SignLegacyPayload], in the form that it has in
// a token. All fields of c are required.
func LegacyPayload(c LegacyClaims) (string, error) {
	if err := c.validate(); err != nil {
		return "", err
	}
	claims, err := json.Marshal(c.payload()) //nolint:gosec // the name of a Secret is not secret
	return base64.RawURLEncoding.EncodeToString(claims), err
}

func (s *Signer) currentKey() (*keySigner, error) {
	key := s.keys().Signing()
	if cached := s.cachedSigner.Load(); cached != nil && cached.id == key.PublicKey().ID() {
		return cached, nil
	}
	if !key.CanSign() {
		return nil, errors.New("there is no key that can sign")
	}
	jwk := key.PublicKey().JWK()
	jwk.Key = cryptosigner.Opaque(key)
	signingKey := jose.SigningKey{Algorithm: key.PublicKey().Algorithm(), Key: jwk}
	made := &keySigner{id: key.PublicKey().ID()}
	var err error
	if made.legacy, err = jose.NewSigner(signingKey, nil); err != nil {
		return nil, err
	}
	if made.typed, err = jose.NewSigner(signingKey, (&jose.SignerOptions{}).WithType("JWT")); err != nil {
		return nil, err
	}
	s.cachedSigner.Store(made)
	return made, nil
}
