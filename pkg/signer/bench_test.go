package signer_test

import (
	"testing"

	externaljwt "k8s.io/externaljwt/apis/v1"

	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// A payload of kube-apiserver for a pod, by size and form.
const podClaims = `{"aud":["https://kubernetes.default.svc"],"exp":1900000000,"iat":1800000000,"iss":"https://kubernetes.default.svc","jti":"0f6a2f1e-30c5-4c06-9c11-2ef0a8c7d7ff",` +
	`"kubernetes.io":{"namespace":"default","node":{"name":"node-1","uid":"8f5a7b5c-52c4-4f79-a2aa-94ba1a27b9e7"},"pod":{"name":"app-6c5f4b9d8-xk2lp","uid":"5d9d4b0e-5d33-4a53-b7d5-5f1f2f0e9a11"},` +
	`"serviceaccount":{"name":"default","uid":"1b7c0f7e-2f7d-4a0a-8d3e-0f2f3d4c5b6a"},"warnafter":1800003607},"nbf":1800000000,"sub":"system:serviceaccount:default:default"}`

// BenchmarkSign measures a token in process and through the socket. The floor is a request that
// signs nothing: it is only transport, mostly that of the client, and costs as much as an ES256
// signature.
func BenchmarkSign(b *testing.B) {
	b.Run("floor/socket", func(b *testing.B) {
		client := dial(b, newFixture(b, testkit.Keys("p256")).main)
		b.ResetTimer()
		b.SetParallelism(8)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := client.Metadata(b.Context(), &externaljwt.MetadataRequest{}); err != nil {
					b.Error(err)
				}
			}
		})
	})
	for _, vector := range []string{"p256", "rsa2048"} {
		set := testkit.Keys(vector)
		b.Run(vector+"/in process", func(b *testing.B) {
			signer := token.NewSigner(func() *keys.Set { return set })
			payload := encode(podClaims)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := signer.Sign(payload); err != nil {
						b.Error(err)
					}
				}
			})
		})
		b.Run(vector+"/socket", func(b *testing.B) {
			f := newFixture(b, set)
			client := dial(b, f.main)
			request := &externaljwt.SignJWTRequest{Claims: encode(podClaims)}
			b.ResetTimer()
			b.SetParallelism(8)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := client.Sign(b.Context(), request); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}
