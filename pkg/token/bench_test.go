package token_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"math/big"
	"testing"

	"github.com/sakeeper/sakeeper/pkg/token"
)

var benchKeys = []struct{ name, vector string }{{"RS256", "rsa2048"}, {"ES256", "p256"}}

// BenchmarkSignLegacy shows what a token costs on top of its signature.
func BenchmarkSignLegacy(b *testing.B) {
	for _, key := range benchKeys {
		b.Run(key.name+"/token", func(b *testing.B) {
			signer := token.NewSigner(always(newSet(b, key.vector)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := signer.SignLegacy(b.Context(), builder); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(key.name+"/signature", func(b *testing.B) {
			signer, digest := mustSigner(b, key.vector), sha256.Sum256([]byte(builderPayload))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := signer.Sign(rand.Reader, digest[:], crypto.SHA256); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkVerifyLegacy(b *testing.B) {
	for _, key := range benchKeys {
		b.Run(key.name, func(b *testing.B) {
			set := newSet(b, key.vector)
			verifier, compact := token.NewVerifier(always(set)), mustSignLegacy(b, set)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := verifier.VerifyLegacy(compact); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkVerify compares the whole verification of a bound token with that of its bare
// signature.
func BenchmarkVerify(b *testing.B) {
	set := newSet(b, "p256")
	payload := base64.RawURLEncoding.EncodeToString([]byte(`{"aud":["https://kubernetes.default.svc"],"exp":1900000000,"iat":1800000000,"iss":"https://issuer","jti":"0f6a2f1e-30c5-4c06-9c11-2ef0a8c7d7ff",` +
		`"kubernetes.io":{"namespace":"default","node":{"name":"node-1","uid":"8f5a7b5c"},"pod":{"name":"app-6c5f4b9d8-xk2lp","uid":"5d9d4b0e"},"serviceaccount":{"name":"default","uid":"1b7c0f7e"}},"nbf":1800000000,"sub":"system:serviceaccount:default:default"}`))
	segments, err := token.NewSigner(always(set)).Sign(payload)
	if err != nil {
		b.Fatal(err)
	}
	compact := segments.Header + "." + payload + "." + segments.Signature
	b.Run("token", func(b *testing.B) {
		verifier := token.NewVerifier(always(set))
		for b.Loop() {
			if _, err := verifier.Verify(compact, "https://issuer"); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("bare signature", func(b *testing.B) {
		public, ok := set.Signing().PublicKey().Key().(*ecdsa.PublicKey)
		signature, err := base64.RawURLEncoding.DecodeString(segments.Signature)
		if !ok || err != nil {
			b.Fatal(err)
		}
		r, s := new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])
		for b.Loop() {
			digest := sha256.Sum256([]byte(segments.Header + "." + payload))
			if !ecdsa.Verify(public, digest[:], r, s) {
				b.Fatal("wrong signature")
			}
		}
	})
}
