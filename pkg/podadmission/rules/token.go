package rules

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/sakeeper/sakeeper/pkg/token"
)

// IsToken returns true if secret is a token Secret of account that pods can use: it has a token that
// is not marked invalid, and it is not being deleted.
func IsToken(secret *corev1.Secret, account *corev1.ServiceAccount) bool {
	return IsTokenOf(secret, account) && len(secret.Data[corev1.ServiceAccountTokenKey]) > 0
}

// IsTokenOf returns true if secret is such a Secret, or will be when a controller has filled it.
func IsTokenOf(secret *corev1.Secret, account *corev1.ServiceAccount) bool {
	uid := secret.Annotations[corev1.ServiceAccountUIDKey]
	switch {
	case secret.Type != corev1.SecretTypeServiceAccountToken,
		secret.Annotations[corev1.ServiceAccountNameKey] != account.Name,
		uid != "" && uid != string(account.UID),
		secret.Labels[token.InvalidSinceLabel] != "",
		secret.DeletionTimestamp != nil:
		return false
	default:
		return true
	}
}
