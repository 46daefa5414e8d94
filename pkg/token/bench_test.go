package token_test

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
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
