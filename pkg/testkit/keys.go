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

// Keys returns a set of the test keys of package keys, by name ("p256", "rsa2048" and so
// on).
func Keys(signing string, verification ...string) *keys.Set {
	var public []keys.PublicKey
	for _, name := range verification {
		public = append(public, mustReadKey(name).PublicKey())
	}
	return keys.NewSet(mustReadKey(signing), public...)
}

func mustReadKey(name string) keys.PrivateKey {
	_, here, _, _ := runtime.Caller(0) //nolint:dogsled // only the file is needed
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

// WriteECKey generates a P-256 key and writes it to path.
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
