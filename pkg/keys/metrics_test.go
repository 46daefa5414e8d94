package keys

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestCollector(t *testing.T) {
	signing := newECKey(t)
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	mustNil(t, err)
	verification, err := NewPublicKey(other.Public())
	mustNil(t, err)

	set := NewSet(signing, verification)
	collector := NewCollector(func() *Set { return set })
	mustNil(t, testutil.CollectAndCompare(collector, strings.NewReader(`
# HELP sakeeper_key_info Always 1; one series per key. use is signing or verification.
# TYPE sakeeper_key_info gauge
sakeeper_key_info{algorithm="ES256",key_id="`+signing.PublicKey().ID()+`",use="signing"} 1
sakeeper_key_info{algorithm="RS256",key_id="`+verification.ID()+`",use="verification"} 1
`)))

	set = NewSet(newECKey(t), signing.PublicKey()) // a rotation
	mustNil(t, testutil.CollectAndCompare(collector, strings.NewReader(`
# HELP sakeeper_key_info Always 1; one series per key. use is signing or verification.
# TYPE sakeeper_key_info gauge
sakeeper_key_info{algorithm="ES256",key_id="`+signing.PublicKey().ID()+`",use="verification"} 1
sakeeper_key_info{algorithm="ES256",key_id="`+set.Signing().PublicKey().ID()+`",use="signing"} 1
`)))
}

func newECKey(t *testing.T) PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	mustNil(t, err)
	private, err := NewPrivateKey(key)
	mustNil(t, err)
	return private
}

func mustNil(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
