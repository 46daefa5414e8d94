package testkit

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"runtime"

	"github.com/sakeeper/sakeeper/pkg/keys"
)

// Keys is a set of the keys that package keys has for its tests ("p256", "rsa2048"
// and so on): the first signs, the others verify.
func Keys(signing string, verification ...string) *keys.Set {
	var public []keys.PublicKey
	for _, name := range verification {
		public = append(public, mustReadKey(name).PublicKey())
	}
	return keys.NewSet(mustReadKey(signing), public...)
}

func mustReadKey(name string) keys.PrivateKey {
	_, here, _, _ := runtime.Caller(0) //nolint:dogsled // the file is all that is wanted
	data, err := os.ReadFile(filepath.Join(filepath.Dir(here), "..", "keys", "testdata", "insecure-"+name+"-pkcs8.pem"))
	if err != nil {
		panic("testkit: internal error: " + err.Error())
	}
	key, err := keys.ParsePrivate(data)
	if err != nil {
		panic("testkit: internal error: " + err.Error())
	}
	return key
}

// WriteECKey makes a key of P-256 and writes it to that file.
func WriteECKey(path string) (keys.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return keys.PrivateKey{}, err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return keys.PrivateKey{}, err
	}
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		return keys.PrivateKey{}, err
	}
	return keys.NewPrivateKey(key)
}
