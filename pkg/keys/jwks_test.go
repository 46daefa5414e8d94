package keys_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sakeeper/sakeeper/pkg/keys"
)

// shortModulus is the n of an RSA key of 1024 bits.
const shortModulus = "wKPbLh0E0wA0_sN1MaGD2Z8nTZ1sHqCZ3qBYDCmXAQhPdKkhxRrJxAcOTKXk3XsHHSNqbZxN8dyW9lbL7aCkXqk3bq3YHgQXjvxBB2YkdQv2L1mFw9lYVQyxP7fWd8J3xkZBvP8y8a5f0pJvMZbC1Jt4a0FjvYhNq9yhM4l3cWE"

// unusableJWKs are JWKs that another issuer may publish beside those of its tokens.
func unusableJWKs() map[string]string {
	return map[string]string{
		"Ed25519":             `{"kty":"OKP","crv":"Ed25519","kid":"odd","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`,
		"X25519":              `{"kty":"OKP","crv":"X25519","kid":"odd","x":"hSDwCYkwp1R0i33ctD73Wg2_Og0mOBr066SpjqqbTmo"}`,
		"secp256k1":           `{"kty":"EC","crv":"secp256k1","kid":"odd","x":"WKn-ZIGevcwGIyyrzFoZNBdaq9_TsqzGl96oc0CWuis","y":"y77t-RvAHRKTsSGdIYUfweuOvwrvDD-Q3Hv5J0fSKbE"}`,
		"a point off P-256":   `{"kty":"EC","crv":"P-256","kid":"odd","x":"WKn-ZIGevcwGIyyrzFoZNBdaq9_TsqzGl96oc0CWuis","y":"WKn-ZIGevcwGIyyrzFoZNBdaq9_TsqzGl96oc0CWuis"}`,
		"an unknown kty":      `{"kty":"XYZ","kid":"odd"}`,
		"ML-DSA":              `{"kty":"AKP","alg":"ML-DSA-44","kid":"odd","pub":"AAAA"}`,
		"no kty":              `{"kid":"odd"}`,
		"RSA without n":       `{"kty":"RSA","kid":"odd","e":"AQAB"}`,
		"RSA, n no base64":    `{"kty":"RSA","kid":"odd","n":"!!","e":"AQAB"}`,
		"RSA with e of 1":     `{"kty":"RSA","kid":"odd","n":"` + shortModulus + `","e":"AQ"}`,
		"RSA of 1024 bits":    `{"kty":"RSA","kid":"odd","n":"` + shortModulus + `","e":"AQAB"}`,
		"a symmetric key":     `{"kty":"oct","kid":"odd","k":"AAAA"}`,
		"a broken x5c":        `{"kty":"RSA","kid":"odd","n":"` + shortModulus + `","e":"AQAB","x5c":["!"]}`,
		"numbers for x and y": `{"kty":"EC","crv":"P-256","kid":"odd","x":1,"y":2}`,
		"a kid twice":         `{"kty":"XYZ","kid":"odd","kid":"odd"}`,
		"null":                `null`,
		"a string":            `"odd"`,
		"a list":              `[]`,
		"a kid of a number":   `{"kty":"XYZ","kid":7}`,
	}
}

func mustJWK(t testing.TB, vector, kid string) string {
	t.Helper()
	key, err := keys.ParsePublic([]byte(mustRead(t, vector+"-public")))
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(key[0].WithID(kid).JWK())
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestParseJWKSLosesOnlyTheUnusableKey(t *testing.T) {
	good := mustJWK(t, "rsa2048", "good")
	for name, odd := range unusableJWKs() {
		t.Run(name, func(t *testing.T) {
			for at, list := range []string{odd + "," + good, good + "," + odd} {
				found, unusable, err := keys.ParseJWKS([]byte(`{"keys":[` + list + `]}`))
				if err != nil || len(found) != 1 || found[0].ID() != "good" || len(unusable) != 1 {
					t.Fatalf("found %v, unusable %v, error %v", found, unusable, err)
				}
				want := fmt.Sprintf("key %d", at+1)
				if strings.Contains(odd, `"kid":"odd"`) {
					want += ` with kid "odd"`
				}
				text := unusable[0].Error()
				if !strings.HasPrefix(text, want+": ") || strings.Contains(text, shortModulus[:8]) || strings.Contains(text, "XYZ") {
					t.Errorf("%s, want %s: ...", text, want)
				}
			}
		})
	}
}

func TestParseJWKS(t *testing.T) {
	p256 := mustJWK(t, "p256", "")
	cases := map[string]struct {
		in      string
		want    []string // key ids
		wantErr bool
	}{
		"every type":               {in: `{"keys":[` + mustJWK(t, "rsa2048", "a") + "," + mustJWK(t, "p256", "b") + "," + mustJWK(t, "p384", "c") + "," + mustJWK(t, "p521", "d") + `]}`, want: []string{"a", "b", "c", "d"}},
		"a key without kid":        {in: `{"keys":[` + strings.Replace(p256, `"kid":"",`, "", 1) + `]}`, want: []string{mustKeyID(t, "p256")}},
		"a key for encryption":     {in: `{"keys":[` + strings.Replace(mustJWK(t, "p256", "a"), `"sig"`, `"enc"`, 1) + `]}`},
		"no keys":                  {in: `{"keys":[]}`},
		"no list":                  {in: `{}`, wantErr: true},
		"a list that is an object": {in: `{"keys":{}}`, wantErr: true},
		"no JSON":                  {in: `-----BEGIN PUBLIC KEY-----`, wantErr: true},
		"half a document":          {in: `{"keys":[` + p256, wantErr: true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			found, unusable, err := keys.ParseJWKS([]byte(tc.in))
			if (err != nil) != tc.wantErr || len(unusable) != 0 {
				t.Errorf("unusable %v, error %v", unusable, err)
			}
			var got []string
			for _, key := range found {
				got = append(got, key.ID())
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("ids (-want +got):\n%s", diff)
			}
		})
	}
}

func mustKeyID(t testing.TB, vector string) string {
	t.Helper()
	found, err := keys.ParsePublic([]byte(mustRead(t, vector+"-public")))
	if err != nil {
		t.Fatal(err)
	}
	return found[0].ID()
}

func FuzzParseJWKS(f *testing.F) {
	for _, odd := range unusableJWKs() {
		f.Add([]byte(`{"keys":[` + odd + `,` + mustJWK(f, "p256", "a") + `]}`))
	}
	for _, vector := range []string{"rsa2048", "p384", "p521"} {
		f.Add([]byte(`{"keys":[` + mustJWK(f, vector, "") + `]}`))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		found, unusable, err := keys.ParseJWKS(data)
		if err != nil && len(found)+len(unusable) > 0 {
			t.Errorf("keys %v and %v came with error %v", found, unusable, err)
		}
		for _, key := range found {
			own, err := keys.NewPublicKey(key.Key())
			if err != nil || key.ID() == "" {
				t.Fatalf("key %q: %v", key.ID(), err)
			}
			expectSameAgain(t, own)
		}
	})
}
