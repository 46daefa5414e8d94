package keys

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"fmt"

	"github.com/go-jose/go-jose/v4"
)

// Generate makes a key for one of [Algorithms]. RSA keys have 2048 bits, as those of kubeadm.
func Generate(algorithm jose.SignatureAlgorithm) (PrivateKey, error) {
	var made crypto.Signer
	var err error
	switch algorithm {
	case jose.RS256:
		made, err = rsa.GenerateKey(rand.Reader, minRSABits)
	case jose.ES256:
		made, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case jose.ES384:
		made, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case jose.ES512:
		made, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	default:
		return PrivateKey{}, fmt.Errorf("algorithm %q is not one of %v", algorithm, Algorithms())
	}
	if err != nil {
		return PrivateKey{}, fmt.Errorf("generate key: %w", err)
	}
	return NewPrivateKey(made)
}
