package keys

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/go-jose/go-jose/v4"
)

// minRSABits is the minimum of RFC 7518, section 3.3, for RS256.
const minRSABits = 2048

// Algorithms returns the signature algorithms of the keys that this package accepts. Tokens
// with any other algorithm are refused before a key is chosen.
func Algorithms() []jose.SignatureAlgorithm {
	return []jose.SignatureAlgorithm{jose.RS256, jose.ES256, jose.ES384, jose.ES512}
}

// algorithmOf is the only table from key to JOSE algorithm. It returns an error for a key that
// is not accepted.
func algorithmOf(key crypto.PublicKey) (jose.SignatureAlgorithm, error) {
	switch k := key.(type) {
	case *rsa.PublicKey:
		if k.N.BitLen() < minRSABits {
			return "", fmt.Errorf("RSA key of %d bits, at least %d are needed", k.N.BitLen(), minRSABits)
		}
		return jose.RS256, nil
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			return jose.ES256, nil
		case elliptic.P384():
			return jose.ES384, nil
		case elliptic.P521():
			return jose.ES512, nil
		}
		return "", errors.New("ECDSA key on an unsupported curve, P-256, P-384 or P-521 is needed")
	default:
		return "", fmt.Errorf("key of type %T, RSA or ECDSA is needed", key)
	}
}

// idOf returns the key id as kube-apiserver computes it: unpadded base64url of the SHA-256 of
// the SubjectPublicKeyInfo in DER.
func idOf(key crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "", fmt.Errorf("public key cannot be encoded: %w", err)
	}
	sum := sha256.Sum256(der)
	return base64.RawURLEncoding.EncodeToString(sum[:]), nil
}
