package cache

import (
	"crypto/sha256"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/sakeeper/sakeeper/pkg/token"
)

// ByAccount indexes token Secrets by "<namespace>/<service account>".
const ByAccount = "account"

// TokenSecret is what is kept of a Secret of type
// kubernetes.io/service-account-token.
type TokenSecret struct {
	// ObjectMeta is reduced to identity, labels and settings. It has no other
	// annotations: tools keep copies of data there (kubectl apply does).
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
	// Token is what is known of the token.
	Token Token
	// Unfilled is the whole object less its managedFields while it has no token,
	// and nil as soon as it has one. It may be written back.
	Unfilled *corev1.Secret
}

// Token is what is kept of a token: values that stay true whatever becomes of the
// keys and of the account.
type Token struct {
	// Sum is the SHA-256 of the token, of no bytes where there is none.
	Sum [sha256.Size]byte
	// Own: it is a legacy token whose claims name this namespace, this Secret and the
	// ServiceAccount of the annotation. What else stands in a Secret is its user's.
	Own bool
	// ClaimedUID is the UID of the ServiceAccount in the claims of an own token.
	ClaimedUID types.UID
	// VerifiedBy is the id of the key that was seen to verify an own token. Empty:
	// none that was known when the Secret was cached.
	VerifiedBy string
	// TriedWith is the id of the set of keys that an own token was tried with.
	TriedWith string
}

// Inspect reads a legacy token, as [token.Verifier.Inspect] does.
type Inspect func(compact string) (token.Inspection, error)

// TokenSecrets caches all token Secrets of the cluster and fetches no others. With
// inspect nil it is not known whose the tokens are.
func TokenSecrets(client kubernetes.Interface, inspect Inspect) (toolscache.TypedSharedIndexInformer[*TokenSecret], error) {
	informer := coreinformers.NewFilteredSecretInformer(client, "", 0, namespaceIndex(), func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector("type", string(corev1.SecretTypeServiceAccountToken)).String()
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

// NewTokenSecret reduces secret, and takes over what it keeps of it.
func NewTokenSecret(secret *corev1.Secret, inspect Inspect) *TokenSecret {
	return newTokenSecret(secret, nil, inspect)
}

// newTokenSecret is NewTokenSecret for one that is cached already, in a former version;
// nil: it is not.
func newTokenSecret(secret *corev1.Secret, former *TokenSecret, inspect Inspect) *TokenSecret {
	reduced := &TokenSecret{
		ObjectMeta:   identity(secret.ObjectMeta),
		Account:      secret.Annotations[corev1.ServiceAccountNameKey],
		AccountUID:   types.UID(secret.Annotations[corev1.ServiceAccountUIDKey]),
		CASum:        sha256.Sum256(secret.Data[corev1.ServiceAccountRootCAKey]),
		HasNamespace: len(secret.Data[corev1.ServiceAccountNamespaceKey]) > 0,
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
	// A Secret comes again whenever somebody changes anything of it, when it goes, and with
	// every list after a broken watch: nobody verifies its token each time.
	if former != nil && former.Account == s.Account && former.Token.Sum == described.Sum && former.Token.VerifiedBy != "" {
		return s.shareUID(former.Token)
	}
	facts, err := inspect(string(compact))
	claims := facts.UnverifiedClaims
	if err != nil || claims.Namespace != s.Namespace || claims.SecretName != s.Name || claims.ServiceAccountName != s.Account {
		return described
	}
	described.Own, described.VerifiedBy, described.TriedWith = true, facts.VerifiedBy, facts.TriedWith
	described.ClaimedUID = types.UID(claims.ServiceAccountUID)
	return s.shareUID(described)
}

// shared is t with one string in memory, not two, where it names the same UID as s.
func (s *TokenSecret) shareUID(t Token) Token {
	if t.ClaimedUID == s.AccountUID {
		t.ClaimedUID = s.AccountUID
	}
	return t
}

// AccountName is the ServiceAccount that the Secret names.
func (s *TokenSecret) AccountName() toolscache.ObjectName {
	return toolscache.ObjectName{Namespace: s.Namespace, Name: s.Account}
}
