package keys_test

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"

	"github.com/sakeeper/sakeeper/pkg/keys"
)

func addVectors(f *testing.F) {
	f.Helper()
	paths, err := filepath.Glob(vectorPath("*"))
	if err != nil || len(paths) == 0 {
		f.Fatalf("%d vectors, error %v", len(paths), err)
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(mustRead(f, "p256-sec1") + breakBase64(mustRead(f, "p256-public"))))
}

// expectSameAgain writes the public key as PEM and reads it back.
func expectSameAgain(t *testing.T, key keys.PublicKey) {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key.Key())
	if err != nil {
		t.Fatal(err)
	}
	again, err := keys.ParsePublic(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	if err != nil || len(again) != 1 || again[0].ID() != key.ID() || again[0].Algorithm() != key.Algorithm() {
		t.Errorf("key %s (%s) was read back as %v, error %v", key, key.Algorithm(), again, err)
	}
}

func FuzzParsePrivate(f *testing.F) {
	addVectors(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		key, err := keys.ParsePrivate(data)
		if err != nil {
			if key.String() != "" {
				t.Errorf("key %s came with error %v", key, err)
			}
			return
		}
		expectSameAgain(t, key.PublicKey())
	})
}

func FuzzParsePublic(f *testing.F) {
	addVectors(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		found, err := keys.ParsePublic(data)
		if (err == nil) != (len(found) > 0) {
			t.Errorf("%d keys, error %v", len(found), err)
		}
		for _, key := range found {
			expectSameAgain(t, key)
		}
	})
}
