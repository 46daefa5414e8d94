package tokens

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	_ "crypto/sha512" // SHA-384 and SHA-512 by name
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"
)

// key signs in the JWS format.
type key struct {
	algorithm, id string
	hash          crypto.Hash
	private       crypto.Signer
	publicPEM     []byte
}

// ring has the verification keys, and a key that is not one of them.
type ring struct {
	known   []key
	unknown key
	public  []any
	file    string
}

func newRing(t *testing.T) *ring {
	t.Helper()
	r := &ring{file: filepath.Join(t.TempDir(), "keys.pem")}
	var content []byte
	for algorithm, curve := range map[string]elliptic.Curve{"ES256": elliptic.P256(), "ES384": elliptic.P384(), "ES512": elliptic.P521()} {
		private, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		r.known = append(r.known, newKey(t, algorithm, private))
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	r.known = append(r.known, newKey(t, "RS256", rsaKey))
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r.unknown = newKey(t, "ES256", other)
	for _, k := range r.known {
		r.public = append(r.public, k.private.Public())
		content = append(content, k.publicPEM...)
	}
	if err := os.WriteFile(r.file, content, 0o600); err != nil {
		t.Fatal(err)
	}

	return r
}

func newKey(t *testing.T, algorithm string, private crypto.Signer) key {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(der)
	hash := map[string]crypto.Hash{"ES256": crypto.SHA256, "ES384": crypto.SHA384, "ES512": crypto.SHA512, "RS256": crypto.SHA256}[algorithm]

	return key{
		algorithm: algorithm, id: base64.RawURLEncoding.EncodeToString(sum[:]), hash: hash, private: private,
		publicPEM: pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}),
	}
}

func (k key) sign(message []byte) []byte {
	h := k.hash.New()
	h.Write(message)
	private, ok := k.private.(*ecdsa.PrivateKey)
	if !ok {
		signature, err := k.private.Sign(rand.Reader, h.Sum(nil), k.hash)
		if err != nil {
			panic(err)
		}

		return signature
	}
	r, s, err := ecdsa.Sign(rand.Reader, private, h.Sum(nil))
	if err != nil {
		panic(err)
	}
	size := (private.Curve.Params().BitSize + 7) / 8

	return append(r.FillBytes(make([]byte, size)), s.FillBytes(make([]byte, size))...)
}

// mac signs with the public key as an HMAC secret, which a verifier must refuse.
func (k key) mac(message []byte) []byte {
	h := hmac.New(sha256.New, k.publicPEM)
	h.Write(message)

	return h.Sum(nil)
}
