package keys_test

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sakeeper/sakeeper/pkg/keys"
)

var verbs = []string{"%v", "%+v", "%#v", "%s", "%x", "%X", "%d", "%q", "%o", "%t", "%30v"}

func newInt(bits uint) *big.Int { return new(big.Int).Lsh(big.NewInt(1), bits-1) }

// mustSecrets returns the secret numbers of a PKCS#8 vector in every notation that
// a printed key could have them in.
func mustSecrets(t testing.TB, name string) []string {
	t.Helper()
	var numbers []*big.Int
	switch key := mustDecode(t, name).(type) {
	case *rsa.PrivateKey:
		numbers = append(numbers, key.D, key.Precomputed.Dp, key.Precomputed.Dq, key.Precomputed.Qinv)
		numbers = append(numbers, key.Primes...)
	case *ecdsa.PrivateKey:
		d, err := key.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		numbers = append(numbers, new(big.Int).SetBytes(d))
	}
	var secrets []string
	for _, n := range numbers {
		b := n.Bytes()
		secrets = append(secrets, n.String(), fmt.Sprintf("%x", n), fmt.Sprintf("%X", n), fmt.Sprintf("%o", n),
			strings.Trim(fmt.Sprint(b[:8]), "[]"), strings.TrimSuffix(fmt.Sprintf("%#v", b[:8])[len("[]byte{"):], "}"),
			base64.StdEncoding.EncodeToString(b)[:20], base64.RawURLEncoding.EncodeToString(b)[:20])
	}
	return secrets
}

func holdsAny(text string, secrets []string) bool {
	for _, secret := range secrets {
		if strings.Contains(text, secret) {
			return true
		}
	}
	return false
}

// exported and unexported differ: fmt reaches the methods of a field only when the
// field is exported.
type (
	exported   struct{ Key keys.PrivateKey }
	unexported struct{ key keys.PrivateKey }
)

func TestPrintingNeverShowsKeyMaterial(t *testing.T) {
	for _, vector := range []string{"rsa2048-pkcs8", "p256-pkcs8", "p384-pkcs8", "p521-pkcs8"} {
		key := mustParsePrivate(t, vector)
		set := keys.NewSet(key, mustParsePublic(t, "p256-public"))
		secrets := mustSecrets(t, vector)
		cases := map[string]any{
			"a key":                              key,
			"a pointer to a key":                 &key,
			"a struct":                           exported{key},
			"a pointer to a struct":              &exported{key},
			"a struct with an unexported field":  unexported{key},
			"a pointer to such a struct":         &unexported{key},
			"a slice":                            []keys.PrivateKey{key},
			"a map":                              map[string]keys.PrivateKey{"key": key},
			"a set":                              set,
			"a set by value":                     *set,
			"a struct that holds a set":          struct{ Set *keys.Set }{set},
			"a struct that holds a set by value": struct{ Set keys.Set }{*set},
		}
		for name, value := range cases {
			t.Run(vector+"/"+name, func(t *testing.T) {
				for _, verb := range verbs {
					if text := fmt.Sprintf(verb, value); holdsAny(text, secrets) {
						t.Errorf("%s shows key material: %s", verb, text)
					}
				}
				if text, err := json.Marshal(value); err == nil && holdsAny(string(text), secrets) {
					t.Errorf("JSON shows key material: %s", text)
				}
			})
		}
		// What the standard library prints shows that the secrets would be found.
		if text := fmt.Sprintf("%v", mustDecode(t, vector)); !holdsAny(text, secrets) {
			t.Errorf("%s: the secrets of a printed key are not found in %s", vector, text)
		}
	}
}

func TestPrintedKeyIsItsID(t *testing.T) {
	key := mustParsePrivate(t, "rsa2048-pkcs1")
	for _, verb := range verbs {
		for what, value := range map[string]any{"key": key, "pointer": &key} {
			if diff := cmp.Diff(rsaID, fmt.Sprintf(verb, value)); diff != "" {
				t.Errorf("%s of a %s (-want +got):\n%s", verb, what, diff)
			}
		}
	}
	if diff := cmp.Diff(rsaID, key.String()); diff != "" {
		t.Errorf("String (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(rsaID, fmt.Sprint(key.PublicKey())); diff != "" {
		t.Errorf("printed public key (-want +got):\n%s", diff)
	}
}
