package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/sakeeper/sakeeper/pkg/keys"
)

func TestKeyCollector(t *testing.T) {
	signing := newKey(t)
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	mustNil(t, err)
	verification, err := keys.NewPublicKey(other.Public())
	mustNil(t, err)

	set := keys.NewSet(signing, verification)
	collector := newKeyCollector(func() *keys.Set { return set })
	mustNil(t, testutil.CollectAndCompare(collector, strings.NewReader(`
# HELP sakeeper_key_info Always 1; one series per key. use is signing or verification.
# TYPE sakeeper_key_info gauge
sakeeper_key_info{algorithm="ES256",key_id="`+signing.PublicKey().ID()+`",use="signing"} 1
sakeeper_key_info{algorithm="RS256",key_id="`+verification.ID()+`",use="verification"} 1
`)))

	set = keys.NewSet(newKey(t), signing.PublicKey()) // a rotation
	mustNil(t, testutil.CollectAndCompare(collector, strings.NewReader(`
# HELP sakeeper_key_info Always 1; one series per key. use is signing or verification.
# TYPE sakeeper_key_info gauge
sakeeper_key_info{algorithm="ES256",key_id="`+signing.PublicKey().ID()+`",use="verification"} 1
sakeeper_key_info{algorithm="ES256",key_id="`+set.Signing().PublicKey().ID()+`",use="signing"} 1
`)))
}

func newKey(t *testing.T) keys.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	mustNil(t, err)
	private, err := keys.NewPrivateKey(key)
	mustNil(t, err)
	return private
}
