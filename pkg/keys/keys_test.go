package keys_test

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sakeeper/sakeeper/pkg/keys"
)

// The ids of the vectors, computed with openssl:
//
//	openssl pkey -in FILE -pubout -outform DER | openssl dgst -sha256 -binary | basenc --base64url
//
// The RSA and the P-256 key are those of Kubernetes' own tests
// (pkg/serviceaccount/jwt_test.go), which pin the same two ids.
const (
	rsaID  = "JHJehTTTZlsspKHT-GaJxK7Kd1NQgZJu3fyK6K_QDYU"
	p256ID = "SoABiieYuNx4UdqYvZRVeuC6SihxgLrhLy9peHMHpTc"
	p384ID = "vlMWzAmXymTI56ZvTidmo_lwe9MKSS4SLx8p3wulyfU"
	p521ID = "7uTxMcOtFiDDCk9_kS7d_VZU7DCCu4oM8Vwh-Ce8Snc"
)

// vectorPath names a file of testdata by what follows "insecure-".
func vectorPath(name string) string { return filepath.Join("testdata", "insecure-"+name+".pem") }

func mustRead(t testing.TB, name string) string {
	t.Helper()
	data, err := os.ReadFile(vectorPath(name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func mustParsePrivate(t testing.TB, name string) keys.PrivateKey {
	t.Helper()
	key, err := keys.ParsePrivate([]byte(mustRead(t, name)))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return key
}

func mustParsePublic(t testing.TB, name string) keys.PublicKey {
	t.Helper()
	found, err := keys.ParsePublic([]byte(mustRead(t, name)))
	if err != nil || len(found) != 1 {
		t.Fatalf("%s: %d keys, error %v", name, len(found), err)
	}
	return found[0]
}

// mustDecode returns the standard library's private key of a PKCS#8 vector.
func mustDecode(t testing.TB, name string) crypto.Signer {
	t.Helper()
	block, _ := pem.Decode([]byte(mustRead(t, name)))
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return key.(crypto.Signer)
}

// inTreeID is keyIDFromPublicKey of k8s.io/kubernetes/pkg/serviceaccount/jwt.go.
func inTreeID(t testing.TB, key crypto.PublicKey) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(der)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func idsOf(found []keys.PublicKey) []string {
	var ids []string
	for _, key := range found {
		ids = append(ids, key.ID())
	}
	return ids
}

// breakBase64 puts a character into the block's body that base64 does not have.
func breakBase64(block string) string {
	at := strings.Index(block, "-----\n") + len("-----\n") + 8
	return block[:at] + "!" + block[at+1:]
}

// breakDER cuts the block's DER short; the PEM around it stays good.
func breakDER(block string) string {
	decoded, _ := pem.Decode([]byte(block))
	decoded.Bytes = decoded.Bytes[:len(decoded.Bytes)-1]
	return string(pem.EncodeToMemory(decoded))
}

// flipByte changes one byte in the middle of the block's DER.
func flipByte(block string) string {
	decoded, _ := pem.Decode([]byte(block))
	decoded.Bytes[len(decoded.Bytes)/2] ^= 1
	return string(pem.EncodeToMemory(decoded))
}

// relabel gives the block another declared type.
func relabel(block, label string) string {
	decoded, _ := pem.Decode([]byte(block))
	decoded.Type = label
	return string(pem.EncodeToMemory(decoded))
}

// expectNoInput fails when text holds ten bytes in a row of the input, outside of
// the lines that delimit PEM blocks, or the beginning of a block's DER as a number.
func expectNoInput(t testing.TB, text, input string) {
	t.Helper()
	const window = 10
	for line := range strings.Lines(input) {
		if strings.HasPrefix(line, "-----") && strings.Count(line, "-----") == 2 {
			continue
		}
		for i := 0; i+window <= len(line); i++ {
			if part := line[i : i+window]; strings.Contains(text, part) {
				t.Errorf("the text %q holds %q of the input", text, part)
				return
			}
		}
	}
	if block, _ := pem.Decode([]byte(input)); block != nil && len(block.Bytes) > window {
		der := block.Bytes[:window]
		for _, part := range []string{fmt.Sprintf("%x", der), fmt.Sprintf("%X", der), strings.Trim(fmt.Sprint(der), "[]")} {
			if strings.Contains(text, part) {
				t.Errorf("the text %q holds the DER %q of the input", text, part)
			}
		}
	}
}
