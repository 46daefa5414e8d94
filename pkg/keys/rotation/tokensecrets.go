package rotation

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"

	"k8s.io/client-go/tools/pager"

	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// AskCarriers counts the token Secrets of the cluster by the key that verifies their
// token. Nothing of a token is kept.
func CountTokenSecrets(ctx context.Context, secrets typedcorev1.SecretsGetter, ring *keys.Keyring) (TokenSecretCounts, error) {
	set, err := ring.VerificationSet()
	if err != nil {
		return TokenSecretCounts{}, nil //nolint:nilerr // without keys nothing is carried
	}
	verifier := token.NewVerifier(func() *keys.Set { return set })
	carriers := TokenSecretCounts{}
	pages := pager.New(func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
		return secrets.Secrets(metav1.NamespaceAll).List(ctx, options)
	})
	pages.PageBufferSize = 1 // of 500 objects
	err = pages.EachListItem(ctx, metav1.ListOptions{FieldSelector: "type=" + string(corev1.SecretTypeServiceAccountToken)}, func(object runtime.Object) error {
		secret, ok := object.(*corev1.Secret)
		if !ok {
			return nil
		}
		held := secret.Data[corev1.ServiceAccountTokenKey]
		if facts, err := verifier.Inspect(string(held)); err == nil && facts.VerifiedBy != "" {
			carriers[facts.VerifiedBy]++
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list token secrets: %w", err)
	}
	return carriers, nil
}
