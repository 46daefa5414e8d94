package token_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"os"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// builder are the claims of testdata/insecure-in-tree-token.txt, and
// builderPayload the payload in it.
var builder = token.LegacyClaims{
	Namespace:          "team-a",
	SecretName:         "builder-token-x7k2p",
	ServiceAccountName: "builder",
	ServiceAccountUID:  "0a1b2c3d-0000-4000-8000-000000000001",
}

const builderPayload = `{"iss":"kubernetes/serviceaccount",` +
	`"kubernetes.io/serviceaccount/namespace":"team-a",` +
	`"kubernetes.io/serviceaccount/secret.name":"builder-token-x7k2p",` +
	`"kubernetes.io/serviceaccount/service-account.name":"builder",` +
	`"kubernetes.io/serviceaccount/service-account.uid":"0a1b2c3d-0000-4000-8000-000000000001",` +
	`"sub":"system:serviceaccount:team-a:builder"}`

// mustSigner reads a vector of package keys: rsa2048, p256, p384 or p521.
func mustSigner(t testing.TB, vector string) crypto.Signer {
	t.Helper()
	data, err := os.ReadFile("../keys/testdata/insecure-" + vector + "-pkcs8.pem")
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(data)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return key.(crypto.Signer)
}

func mustKey(t testing.TB, signer crypto.Signer) keys.PrivateKey {
	t.Helper()
	key, err := keys.NewPrivateKey(signer)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// newSet makes a set of vectors; the first one signs.
func newSet(t testing.TB, signing string, verification ...string) *keys.Set {
	t.Helper()
	var public []keys.PublicKey
	for _, vector := range verification {
		public = append(public, mustKey(t, mustSigner(t, vector)).PublicKey())
	}
	return keys.NewSet(mustKey(t, mustSigner(t, signing)), public...)
}

func always(set *keys.Set) func() *keys.Set { return func() *keys.Set { return set } }

func mustSignLegacy(t testing.TB, set *keys.Set) string {
	t.Helper()
	compact, err := token.NewSigner(always(set)).SignLegacy(t.Context(), builder)
	if err != nil {
		t.Fatal(err)
	}
	return compact
}

func b64(data string) string { return base64.RawURLEncoding.EncodeToString([]byte(data)) }

// signRS256 signs whatever stands in header and payload with the RSA vector.
func signRS256(t testing.TB, header, payload string) string {
	t.Helper()
	input := b64(header) + "." + b64(payload)
	digest := sha256.Sum256([]byte(input))
	signature, err := rsa.SignPKCS1v15(rand.Reader, mustSigner(t, "rsa2048").(*rsa.PrivateKey), crypto.SHA256, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	return input + "." + b64(string(signature))
}

// signJOSE signs builderPayload with go-jose; an empty kid leaves the header out.
func signJOSE(t testing.TB, algorithm jose.SignatureAlgorithm, key any, kid string) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: algorithm, Key: jose.JSONWebKey{Key: key, KeyID: kid}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign([]byte(builderPayload))
	if err != nil {
		t.Fatal(err)
	}
	compact, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return compact
}

// mustDecode returns header and payload of a token as they stand in it.
func mustDecode(t testing.TB, compact string) (header, payload string) {
	t.Helper()
	parts := strings.Split(compact, ".")
	if len(parts) != 3 {
		t.Fatalf("%d parts, want 3", len(parts))
	}
	var decoded [2]string
	for i := range decoded {
		data, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err != nil {
			t.Fatal(err)
		}
		decoded[i] = string(data)
	}
	return decoded[0], decoded[1]
}

// expectNoToken fails when the error holds twelve bytes in a row of the token, or
// a value of its claims.
func expectNoToken(t testing.TB, err error, compact string) {
	t.Helper()
	const window = 12
	for i := 0; i+window <= len(compact); i++ {
		if strings.Contains(err.Error(), compact[i:i+window]) {
			t.Errorf("error %q holds %q of the token", err, compact[i:i+window])
			return
		}
	}
	for _, value := range []string{builder.Namespace, builder.SecretName, builder.ServiceAccountName, builder.ServiceAccountUID} {
		if strings.Contains(err.Error(), value) {
			t.Errorf("error %q holds the claim %q", err, value)
		}
	}
}
