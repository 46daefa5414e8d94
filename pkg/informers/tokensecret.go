package informers

import (
	"crypto/sha256"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// ByAccount indexes token Secrets by "<namespace>/<service account>".
const ByAccount = "account"

// TokenSecret is what is kept of a Secret of type
// kubernetes.io/service-account-token.
type TokenSecret struct {
	// ObjectMeta is reduced to identity and labels. It has no annotations: tools
	// keep copies of data there (kubectl apply does).
	metav1.ObjectMeta

	// Account is the name in the annotation kubernetes.io/service-account.name.
	Account string
	// AccountUID is the annotation kubernetes.io/service-account.uid, empty until
	// somebody set it.
	AccountUID types.UID
	// CASum is the SHA-256 of ca.crt; of no bytes where there is no ca.crt.
	CASum [sha256.Size]byte
	// HasNamespace tells whether data has a non-empty namespace.
	HasNamespace bool
	// Unfilled is the whole object less its managedFields while it has no token,
	// and nil as soon as it has one. It may be written back.
	Unfilled *corev1.Secret
}

// TokenSecrets caches all token Secrets of the cluster and fetches no others.
func TokenSecrets(client kubernetes.Interface) (cache.TypedSharedIndexInformer[*TokenSecret], error) {
	informer := coreinformers.NewFilteredSecretInformer(client, "", 0, namespaceIndex(), func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector("type", string(corev1.SecretTypeServiceAccountToken)).String()
	})
	typed, err := transformed(informer, NewTokenSecret)
	if err != nil {
		return nil, err
	}
	return typed, typed.AddTypedIndexers(cache.TypedIndexers[*TokenSecret]{
		ByAccount: func(s *TokenSecret) ([]string, error) {
			return []string{s.AccountName().String()}, nil
		},
	})
}

// NewTokenSecret reduces secret, and takes over what it keeps of it.
func NewTokenSecret(secret *corev1.Secret) *TokenSecret {
	reduced := &TokenSecret{
		ObjectMeta:   identity(secret.ObjectMeta),
		Account:      secret.Annotations[corev1.ServiceAccountNameKey],
		AccountUID:   types.UID(secret.Annotations[corev1.ServiceAccountUIDKey]),
		CASum:        sha256.Sum256(secret.Data[corev1.ServiceAccountRootCAKey]),
		HasNamespace: len(secret.Data[corev1.ServiceAccountNamespaceKey]) > 0,
	}
	if len(secret.Data[corev1.ServiceAccountTokenKey]) == 0 {
		secret.ManagedFields = nil
		reduced.Unfilled = secret
	}
	return reduced
}

// AccountName is the ServiceAccount that the Secret names.
func (s *TokenSecret) AccountName() cache.ObjectName {
	return cache.ObjectName{Namespace: s.Namespace, Name: s.Account}
}
