package cache

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/sakeeper/sakeeper/pkg/api"
)

// ManagedSecret is a reduced Secret with the label sakeeper.io/token. If that has another value than
// managed, which is a mistake of the user, only the ObjectMeta without annotations is kept.
type ManagedSecret struct {
	// ObjectMeta has the identity, the labels and the annotations about the token. Other
	// annotations are dropped, because they may have copies of the data (kubectl apply).
	metav1.ObjectMeta

	// Type is the Secret's.
	Type corev1.SecretType
	// Immutable is that of the Secret: the API server refuses changes of the data.
	Immutable bool
	// ContentSum is the [ContentSum] of the keys that [api.FilledKeysAnnotation] names.
	ContentSum [sha256.Size]byte
	// UnknownAnnotations are the annotations below sakeeper.io that sakeeper does not have,
	// such as mistyped ones, sorted.
	UnknownAnnotations []string
	// OtherKeys are the keys of the data that are not empty and that sakeeper did not fill,
	// sorted.
	OtherKeys []string
}

// ManagedSecrets returns an informer of the Secrets with the label sakeeper.io/token, whatever its
// value, with the index [ByAccount].
func ManagedSecrets(client kubernetes.Interface) (toolscache.TypedSharedIndexInformer[*ManagedSecret], error) {
	informer := coreinformers.NewFilteredSecretInformer(client, "", 0, namespaceIndex(), func(o *metav1.ListOptions) {
		o.LabelSelector = api.TokenLabel
	})
	typed, err := Transformed(informer, NewManagedSecret)
	if err != nil {
		return nil, err
	}
	return typed, typed.AddTypedIndexers(toolscache.TypedIndexers[*ManagedSecret]{
		ByAccount: func(s *ManagedSecret) ([]string, error) {
			if !s.Managed() {
				return nil, nil
			}
			return []string{s.Namespace + "/" + s.Annotations[api.ServiceAccountAnnotation]}, nil
		},
	})
}

// NewManagedSecret reduces a Secret.
func NewManagedSecret(secret *corev1.Secret) *ManagedSecret {
	reduced := &ManagedSecret{ObjectMeta: identity(secret.ObjectMeta)}
	reduced.Annotations = nil
	if !reduced.Managed() {
		return reduced
	}
	reduced.Type = secret.Type
	reduced.Immutable = secret.Immutable != nil && *secret.Immutable
	reduced.Annotations = selectAnnotations(secret.Annotations, tokenAnnotations())
	for name := range secret.Annotations {
		if strings.HasPrefix(name, api.AnnotationPrefix) && !slices.Contains(tokenAnnotations(), name) && !slices.Contains(settings(), name) {
			reduced.UnknownAnnotations = append(reduced.UnknownAnnotations, name)
		}
	}
	slices.Sort(reduced.UnknownAnnotations)
	filled := reduced.FilledKeys()
	reduced.ContentSum = ContentSum(secret.Data, filled)
	for key, value := range secret.Data {
		if len(value) > 0 && !slices.Contains(filled, key) {
			reduced.OtherKeys = append(reduced.OtherKeys, key)
		}
	}
	slices.Sort(reduced.OtherKeys)
	return reduced
}

// Managed returns true if the label asks for a token.
func (s *ManagedSecret) Managed() bool { return s.Labels[api.TokenLabel] == api.TokenManaged }

// FilledKeys returns the keys of the data that sakeeper filled, sorted.
func (s *ManagedSecret) FilledKeys() []string {
	text := s.Annotations[api.FilledKeysAnnotation]
	if text == "" {
		return nil
	}
	keys := strings.Split(text, ",")
	slices.Sort(keys)
	return slices.Compact(keys)
}

// ContentSum returns a SHA-256 of the values of keys in data. Keys must be sorted. A missing
// value and an empty one have different sums.
func ContentSum(data map[string][]byte, keys []string) [sha256.Size]byte {
	h := sha256.New()
	for _, key := range keys {
		value, ok := data[key]
		if !ok {
			continue
		}
		hashWithLength(h, []byte(key))
		hashWithLength(h, value)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// hashWithLength makes the boundary between two values part of the hash.
func hashWithLength(h hash.Hash, value []byte) {
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(value))))
	h.Write(value)
}
