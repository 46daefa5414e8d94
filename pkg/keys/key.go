package keys

import (
	"crypto"
	"errors"
	"fmt"
	"io"

	"github.com/go-jose/go-jose/v4"
)

// PublicKey verifies signatures. It is immutable. The zero value is no key: its id is empty.
type PublicKey struct {
	key       crypto.PublicKey
	id        string
	algorithm jose.SignatureAlgorithm
}

// NewPublicKey wraps an *rsa.PublicKey or *ecdsa.PublicKey. It returns an error for a key that
// is too small, or of a type or curve without an algorithm in [Algorithms].
func NewPublicKey(key crypto.PublicKey) (PublicKey, error) {
	algorithm, err := algorithmOf(key)
	if err != nil {
		return PublicKey{}, err
	}
	id, err := idOf(key)
	if err != nil {
		return PublicKey{}, err
	}
	return PublicKey{key: key, id: id, algorithm: algorithm}, nil
}

// ID returns the key id in the kid header of tokens and in JWKS: the SHA-256 of the
// SubjectPublicKeyInfo, in unpadded base64url, unless [PublicKey.WithID] has set another.
func (k PublicKey) ID() string { return k.id }

// WithID returns the key with the id that another issuer uses for it.
func (k PublicKey) WithID(id string) PublicKey {
	k.id = id
	return k
}

// Algorithm returns the only JOSE algorithm that this key is used with.
func (k PublicKey) Algorithm() jose.SignatureAlgorithm { return k.algorithm }

// Key returns the *rsa.PublicKey or *ecdsa.PublicKey, which must not be changed.
func (k PublicKey) Key() crypto.PublicKey { return k.key }

// JWK returns the key as a JSON Web Key (RFC 7517), with the members that kube-apiserver sets.
func (k PublicKey) JWK() jose.JSONWebKey {
	return jose.JSONWebKey{Key: k.key, KeyID: k.id, Algorithm: string(k.algorithm), Use: "sig"}
}

// String returns the id.
func (k PublicKey) String() string { return k.id }

// PrivateKey is a [crypto.Signer] whose private half cannot be read or printed. It is
// immutable. The zero value is no key: it cannot sign, and its id is empty.
type PrivateKey struct {
	signer crypto.Signer // nil if this process does not have the private half
	public PublicKey
}

var _ crypto.Signer = PrivateKey{}

// NewPrivateKey wraps a signer. The errors are those of [NewPublicKey].
func NewPrivateKey(signer crypto.Signer) (PrivateKey, error) {
	public, err := NewPublicKey(signer.Public())
	if err != nil {
		return PrivateKey{}, err
	}
	return PrivateKey{signer: signer, public: public}, nil
}

// PublicOnly returns a signing key whose private half is in another process, or destroyed:
// [PrivateKey.Sign] returns an error. It says which key that other process signs with.
func PublicOnly(public PublicKey) PrivateKey { return PrivateKey{public: public} }

// PublicKey returns the public half.
func (k PrivateKey) PublicKey() PublicKey { return k.public }

// Public implements [crypto.Signer].
func (k PrivateKey) Public() crypto.PublicKey { return k.public.key }

// Sign implements [crypto.Signer].
func (k PrivateKey) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if k.signer == nil {
		return nil, errNoPrivateKey
	}
	return k.signer.Sign(rand, digest, opts)
}

var errNoPrivateKey = errors.New("the private half of the key is not in this process")

// CanSign returns true if this process has the private half.
func (k PrivateKey) CanSign() bool { return k.signer != nil }

// String returns the id.
func (k PrivateKey) String() string { return k.public.id }

// Format writes the id for every verb, so that %#v or %x of a struct with a key does not print
// the private half.
func (k PrivateKey) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, k.public.id) }
