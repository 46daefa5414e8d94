package cache

import (
	"crypto/sha256"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/sakeeper/sakeeper/pkg/token"
)

// ByAccount is the name of the index of Secrets by "<namespace>/<service account>".
const ByAccount = "account"

// TokenSecretSelector selects Secrets of type kubernetes.io/service-account-token by field.
const TokenSecretSelector = "type=" + string(corev1.SecretTypeServiceAccountToken)

// TokenSecret is a reduced Secret of type kubernetes.io/service-account-token.
type TokenSecret struct {
	// ObjectMeta has the identity, the labels and the annotations that are settings. Other
	// annotations are dropped, because they may have copies of the data (kubectl apply).
	metav1.ObjectMeta

	// Account is the annotation kubernetes.io/service-account.name.
	Account string
	// AccountUID is the annotation kubernetes.io/service-account.uid; empty if it is not set.
	AccountUID types.UID
	// CASum is the SHA-256 of ca.crt; without ca.crt, that of no bytes.
	CASum [sha256.Size]byte
	// NamespaceRight is true if data has the namespace of the Secret.
	NamespaceRight bool
	// Token describes the token.
	Token Token
	// Unfilled is the whole Secret without managedFields if it has no token, and else nil. It
	// may be written back.
	Unfilled *corev1.Secret
}

// Token describes a token by values that remain true when keys or the ServiceAccount change.
type Token struct {
	// Sum is the SHA-256 of the token; without a token, that of no bytes.
	Sum [sha256.Size]byte
	// Own is true for a legacy token whose claims name this namespace, this Secret and the
	// ServiceAccount of the annotation.
	Own bool
	// Other is true for a legacy token whose claims name another Secret or ServiceAccount. If
	// neither is true, the content is not a legacy token, and the following fields are empty.
	Other bool
	// ClaimedUID is the UID of the ServiceAccount in the claims.
	ClaimedUID types.UID
	// VerifiedBy is the id of the key that verified the token; empty if none of the keys that
	// were known at that time does.
	VerifiedBy string
	// TriedWith is the id of the set of those keys.
	TriedWith string
}

// Inspect reads a legacy token, as [token.Verifier.Inspect] does.
type Inspect func(compact string) (token.Inspection, error)

// TokenSecrets returns an informer of all Secrets of type
// kubernetes.io/service-account-token, with the index [ByAccount]. If inspect is nil, of a
// token only the sum is known.
func TokenSecrets(client kubernetes.Interface, inspect Inspect) (toolscache.TypedSharedIndexInformer[*TokenSecret], error) {
	informer := coreinformers.NewFilteredSecretInformer(client, "", 0, namespaceIndex(), func(o *metav1.ListOptions) {
		o.FieldSelector = TokenSecretSelector
	})
	var typed toolscache.TypedSharedIndexInformer[*TokenSecret]
	typed, err := Transformed(informer, func(secret *corev1.Secret) *TokenSecret {
		former, _ := Get(typed, toolscache.MetaObjectToName(secret).String())
		return newTokenSecret(secret, former, inspect)
	})
	if err != nil {
		return nil, err
	}
	return typed, typed.AddTypedIndexers(toolscache.TypedIndexers[*TokenSecret]{
		ByAccount: func(s *TokenSecret) ([]string, error) {
			return []string{s.AccountName().String()}, nil
		},
	})
}

// NewTokenSecret reduces secret. The result shares memory with secret, whose managedFields it
// may clear.
func NewTokenSecret(secret *corev1.Secret, inspect Inspect) *TokenSecret {
	return newTokenSecret(secret, nil, inspect)
}

// newTokenSecret is NewTokenSecret of a Secret that may be cached in a former version, or nil.
func newTokenSecret(secret *corev1.Secret, former *TokenSecret, inspect Inspect) *TokenSecret {
	reduced := &TokenSecret{
		ObjectMeta:     identity(secret.ObjectMeta),
		Account:        secret.Annotations[corev1.ServiceAccountNameKey],
		AccountUID:     types.UID(secret.Annotations[corev1.ServiceAccountUIDKey]),
		CASum:          sha256.Sum256(secret.Data[corev1.ServiceAccountRootCAKey]),
		NamespaceRight: string(secret.Data[corev1.ServiceAccountNamespaceKey]) == secret.Namespace,
	}
	compact := secret.Data[corev1.ServiceAccountTokenKey]
	reduced.Token = reduced.inspectToken(compact, former, inspect)
	if len(compact) == 0 {
		secret.ManagedFields = nil
		reduced.Unfilled = secret
	}
	return reduced
}

func (s *TokenSecret) inspectToken(compact []byte, former *TokenSecret, inspect Inspect) Token {
	described := Token{Sum: sha256.Sum256(compact)}
	if len(compact) == 0 || inspect == nil {
		return described
	}
	// The same Secret arrives again with every change and with every list after a broken
	// watch: its token is verified only once.
	if former != nil && former.Account == s.Account && former.Token.Sum == described.Sum && former.Token.VerifiedBy != "" {
		return s.shareUID(former.Token)
	}
	inspection, err := inspect(string(compact))
	claims := inspection.UnverifiedClaims
	if err != nil {
		return described
	}
	described.Own = claims.Namespace == s.Namespace && claims.SecretName == s.Name && claims.ServiceAccountName == s.Account
	described.Other = !described.Own
	described.VerifiedBy, described.TriedWith = inspection.VerifiedBy, inspection.TriedWith
	described.ClaimedUID = types.UID(claims.ServiceAccountUID)
	return s.shareUID(described)
}

// shareUID returns t; if it has the UID of s, both share one string in memory.
func (s *TokenSecret) shareUID(t Token) Token {
	if t.ClaimedUID == s.AccountUID {
		t.ClaimedUID = s.AccountUID
	}
	return t
}

// AccountName returns namespace and name of the ServiceAccount that the Secret names.
func (s *TokenSecret) AccountName() toolscache.ObjectName {
	return toolscache.ObjectName{Namespace: s.Namespace, Name: s.Account}
}
