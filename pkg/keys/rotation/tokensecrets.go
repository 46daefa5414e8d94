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

// TokenSecretCounts is the number of token Secrets by the id of the key that verifies their
// token. Nil means that they were not counted.
type TokenSecretCounts map[string]int

// CountTokenSecrets lists the token Secrets of the cluster and counts them by the key of the
// keyring that verifies their token. The result is never nil without an error.
func CountTokenSecrets(ctx context.Context, secrets typedcorev1.SecretsGetter, ring *keys.Keyring) (TokenSecretCounts, error) {
	set, err := ring.VerificationSet()
	if err != nil {
		return TokenSecretCounts{}, nil //nolint:nilerr // without keys no token is verified
	}
	verifier := token.NewVerifier(func() *keys.Set { return set })
	counts := TokenSecretCounts{}
	pages := pager.New(func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
		return secrets.Secrets(metav1.NamespaceAll).List(ctx, options)
	})
	pages.PageBufferSize = 1 // of 500 objects
	err = pages.EachListItem(ctx, metav1.ListOptions{FieldSelector: "type=" + string(corev1.SecretTypeServiceAccountToken)}, func(object runtime.Object) error {
		secret, ok := object.(*corev1.Secret)
		if !ok {
			return nil
		}
		compact := secret.Data[corev1.ServiceAccountTokenKey]
		if inspection, err := verifier.Inspect(string(compact)); err == nil && inspection.VerifiedBy != "" {
			counts[inspection.VerifiedBy]++
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list token secrets: %w", err)
	}
	return counts, nil
}
