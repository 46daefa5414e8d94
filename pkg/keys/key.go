package keys

import (
	"crypto"
	"errors"
	"fmt"
	"io"

	"github.com/go-jose/go-jose/v4"
)

// PublicKey verifies signatures. It is immutable.
type PublicKey struct {
	key       crypto.PublicKey
	id        string
	algorithm jose.SignatureAlgorithm
}

// NewPublicKey wraps an *rsa.PublicKey or *ecdsa.PublicKey; a key that the policy
// of this package does not allow is an error.
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

// ID is the key id that stands in the kid header of tokens and in JWKS.
func (k PublicKey) ID() string { return k.id }

// Named is the key under an id that another issuer has given it.
func (k PublicKey) WithID(id string) PublicKey {
	k.id = id
	return k
}

// Algorithm is the one JOSE algorithm that this key is used with.
func (k PublicKey) Algorithm() jose.SignatureAlgorithm { return k.algorithm }

// Key is the *rsa.PublicKey or *ecdsa.PublicKey.
func (k PublicKey) Key() crypto.PublicKey { return k.key }

// JWK is the key as RFC 7517 writes it, with the members that kube-apiserver sets.
func (k PublicKey) JWK() jose.JSONWebKey {
	return jose.JSONWebKey{Key: k.key, KeyID: k.id, Algorithm: string(k.algorithm), Use: "sig"}
}

// String is the key's id.
func (k PublicKey) String() string { return k.id }

// PrivateKey signs. It is a [crypto.Signer] whose material cannot be read back:
// a key in memory, or later one behind an HSM or a KMS. It is immutable.
type PrivateKey struct {
	signer crypto.Signer // nil in the zero value, and where the private half is elsewhere
	public PublicKey
}

var _ crypto.Signer = PrivateKey{}

// NewPrivateKey wraps a signer; a key that the policy of this package does not
// allow is an error.
func NewPrivateKey(signer crypto.Signer) (PrivateKey, error) {
	public, err := NewPublicKey(signer.Public())
	if err != nil {
		return PrivateKey{}, err
	}
	return PrivateKey{signer: signer, public: public}, nil
}

// Elsewhere is a signing key whose private half another process has: [PrivateKey.Sign]
// fails. Whoever asks that process to sign knows by it which key does.
func PublicOnly(public PublicKey) PrivateKey { return PrivateKey{public: public} }

// PublicKey is the public half.
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

// CanSign tells whether the private half is here.
func (k PrivateKey) CanSign() bool { return k.signer != nil }

// String is the key's id.
func (k PrivateKey) String() string { return k.public.id }

// Format prints the key's id whatever the verb, so that no %#v or %x of a struct
// that holds a key prints the key.
func (k PrivateKey) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, k.public.id) }
