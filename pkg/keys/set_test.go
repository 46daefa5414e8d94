package keys_test

import (
	"bytes"
	"crypto"
	"crypto/dsa" //nolint:staticcheck // a type that must be refused
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/json"
	"os"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"

	"github.com/sakeeper/sakeeper/pkg/keys"
)

func TestNewSetKeepsEachKeyOnceInOrder(t *testing.T) {
	signing := mustParsePrivate(t, "rsa2048-pkcs1")
	p256, p384 := mustParsePublic(t, "p256-public"), mustParsePublic(t, "p384-public")
	cases := map[string]struct {
		in   []keys.PublicKey
		want []string
	}{
		"only a signing key":                    {nil, []string{rsaID}},
		"more keys follow the signing key":      {[]keys.PublicKey{p384, p256}, []string{rsaID, p384ID, p256ID}},
		"the signing key's own public half":     {[]keys.PublicKey{p256, mustParsePublic(t, "rsa2048-public")}, []string{rsaID, p256ID}},
		"the same key in two forms":             {[]keys.PublicKey{p256, mustParsePublic(t, "p256-certificate"), p384}, []string{rsaID, p256ID, p384ID}},
		"the same key again after another":      {[]keys.PublicKey{p256, p384, p256}, []string{rsaID, p256ID, p384ID}},
		"nothing but the signing key, repeated": {[]keys.PublicKey{signing.PublicKey(), signing.PublicKey()}, []string{rsaID}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			set := keys.NewSet(signing, tc.in...)
			if diff := cmp.Diff(tc.want, idsOf(set.Verification())); diff != "" {
				t.Errorf("verification keys (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(rsaID, set.Signing().PublicKey().ID()); diff != "" {
				t.Errorf("signing key (-want +got):\n%s", diff)
			}
			for _, id := range tc.want {
				if key, ok := set.Lookup(id); !ok || key.ID() != id {
					t.Errorf("Lookup(%q) = %v, %t", id, key, ok)
				}
			}
			for _, id := range []string{"", p521ID, p256ID[:10]} {
				if key, ok := set.Lookup(id); ok {
					t.Errorf("Lookup(%q) found %v", id, key)
				}
			}
		})
	}
}

func TestTheIDOfASetSaysWhichKeySignsAndWhichVerify(t *testing.T) {
	rsaKey, p256 := mustParsePrivate(t, "rsa2048-pkcs1"), mustParsePublic(t, "p256-public")
	p256Key, p384 := mustParsePrivate(t, "p256-pkcs8"), mustParsePublic(t, "p384-public")
	set := keys.NewSet(rsaKey, p256, p384)
	if keys.NewSet(rsaKey, p384, p256).ID() != set.ID() {
		t.Error("the order of the keys that verify counts")
	}
	for name, other := range map[string]*keys.Set{
		"another key signs": keys.NewSet(p256Key, rsaKey.PublicKey(), p384),
		"fewer keys verify": keys.NewSet(rsaKey, p256),
		"no key signs":      keys.NewVerificationSet(rsaKey.PublicKey(), p256, p384),
	} {
		if other.ID() == set.ID() {
			t.Errorf("the same ID although %s", name)
		}
	}
}

func TestSetIsNotChangedThroughWhatItReturns(t *testing.T) {
	set := keys.NewSet(mustParsePrivate(t, "rsa2048-pkcs1"), mustParsePublic(t, "p256-public"))
	set.Verification()[0] = keys.PublicKey{}
	set.JWKS().Keys[1].KeyID = "changed"
	if diff := cmp.Diff([]string{rsaID, p256ID}, idsOf(set.Verification())); diff != "" {
		t.Errorf("verification keys (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(p256ID, set.JWKS().Keys[1].KeyID); diff != "" {
		t.Errorf("key id in the JWKS (-want +got):\n%s", diff)
	}
}

func TestSetEqual(t *testing.T) {
	rsaKey, ecKey := mustParsePrivate(t, "rsa2048-pkcs1"), mustParsePrivate(t, "p256-sec1")
	p384, p521 := mustParsePublic(t, "p384-public"), mustParsePublic(t, "p521-public")
	cases := map[string]struct {
		a, b *keys.Set
		want bool
	}{
		"the same keys from other files":    {keys.NewSet(rsaKey, p384), keys.NewSet(mustParsePrivate(t, "rsa2048-pkcs8"), mustParsePublic(t, "p384-pkcs8")), true},
		"the same keys in another order":    {keys.NewSet(rsaKey, p384, p521), keys.NewSet(rsaKey, p521, p384), true},
		"a duplicate":                       {keys.NewSet(rsaKey, p384), keys.NewSet(rsaKey, p384, p384), true},
		"one key more":                      {keys.NewSet(rsaKey), keys.NewSet(rsaKey, p384), false},
		"another verification key":          {keys.NewSet(rsaKey, p384), keys.NewSet(rsaKey, p521), false},
		"another of the keys that signs":    {keys.NewSet(rsaKey, ecKey.PublicKey()), keys.NewSet(ecKey, rsaKey.PublicKey()), false},
		"another signing key, nothing else": {keys.NewSet(rsaKey), keys.NewSet(ecKey), false},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := tc.a.Equal(tc.b); got != tc.want {
				t.Errorf("a.Equal(b) = %t, want %t", got, tc.want)
			}
			if got := tc.b.Equal(tc.a); got != tc.want {
				t.Errorf("b.Equal(a) = %t, want %t", got, tc.want)
			}
		})
	}
}

// The golden file is what kube-apiserver 1.36 (NewOpenIDMetadataProvider) serves
// for the same keys. Both P-521 coordinates begin with a zero byte.
func TestJWKSIsWhatTheAPIServerServes(t *testing.T) {
	set := keys.NewSet(mustParsePrivate(t, "rsa2048-pkcs1"),
		mustParsePublic(t, "p256-public"), mustParsePublic(t, "p384-public"), mustParsePublic(t, "p521-public"))
	got, err := json.MarshalIndent(set.JWKS(), "", "    ")
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/jwks-in-tree.json")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(bytes.TrimSpace(want)), string(got)); diff != "" {
		t.Errorf("JWKS (-want +got):\n%s", diff)
	}
}

func TestPrivateKeySignsForItsPublicHalf(t *testing.T) {
	digest := sha256.Sum256([]byte("message"))
	for _, name := range []string{"rsa2048-pkcs1", "p256-sec1", "p384-sec1", "p521-sec1"} {
		t.Run(name, func(t *testing.T) {
			key := mustParsePrivate(t, name)
			signature, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
			if err != nil {
				t.Fatal(err)
			}
			var good bool
			switch public := key.PublicKey().Key().(type) {
			case *rsa.PublicKey:
				good = rsa.VerifyPKCS1v15(public, crypto.SHA256, digest[:], signature) == nil
			case *ecdsa.PublicKey:
				good = ecdsa.VerifyASN1(public, digest[:], signature)
			}
			if !good {
				t.Error("the public half does not verify the signature")
			}
		})
	}
}

func TestNewKeyRefusesWhatThePolicyDoesNotAllow(t *testing.T) {
	ed25519Key := mustDecode(t, "ed25519-pkcs8")
	rsaKey := mustDecode(t, "rsa2048-pkcs8").Public().(*rsa.PublicKey)
	cases := map[string]struct{ in crypto.PublicKey }{
		"Ed25519":              {ed25519Key.Public()},
		"DSA":                  {&dsa.PublicKey{}},
		"RSA by value":         {*rsaKey},
		"ECDSA without curve":  {&ecdsa.PublicKey{}},
		"RSA of one bit less":  {&rsa.PublicKey{N: newInt(2047), E: 65537}},
		"nothing":              {nil},
		"a private key":        {mustDecode(t, "p256-pkcs8")},
		"a public key as text": {ed25519.PublicKey(rsaID)},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if key, err := keys.NewPublicKey(tc.in); err == nil {
				t.Errorf("NewPublicKey accepted it as %s", key.Algorithm())
			}
		})
	}
	if _, err := keys.NewPrivateKey(ed25519Key); err == nil {
		t.Error("NewPrivateKey accepted an Ed25519 key")
	}
	if _, err := keys.NewPublicKey(&rsa.PublicKey{N: newInt(2048), E: 65537}); err != nil {
		t.Errorf("NewPublicKey refused an RSA key of 2048 bits: %v", err)
	}
}

func TestAlgorithmsListsWhatKeysHave(t *testing.T) {
	want := []jose.SignatureAlgorithm{}
	for _, name := range []string{"rsa2048-public", "p256-public", "p384-public", "p521-public"} {
		want = append(want, mustParsePublic(t, name).Algorithm())
	}
	if diff := cmp.Diff(want, keys.Algorithms()); diff != "" {
		t.Errorf("algorithms (-want +got):\n%s", diff)
	}
}
