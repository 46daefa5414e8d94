package cache

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/sakeeper/sakeeper/pkg/api"
)

// ManagedSecret is what is kept of a Secret that asks for a token that is renewed.
type ManagedSecret struct {
	// ObjectMeta is reduced to identity, labels and the annotations that are about
	// the token. It has no others: tools keep copies of data there (kubectl apply does).
	metav1.ObjectMeta

	// Type is the Secret's.
	Type corev1.SecretType
	// Immutable: the API server lets nobody change the data.
	Immutable bool
	// ContentSum is the [ContentSum] of the keys that [api.FilledKeysAnnotation] names.
	ContentSum [sha256.Size]byte
	// OtherKeys are the keys of the data that were not filled and are not empty, sorted.
	OtherKeys []string
}

// ManagedSecrets caches the Secrets of the cluster that have the label
// sakeeper.io/token=managed, and fetches no others.
func ManagedSecrets(client kubernetes.Interface) (toolscache.TypedSharedIndexInformer[*ManagedSecret], error) {
	informer := coreinformers.NewFilteredSecretInformer(client, "", 0, namespaceIndex(), func(o *metav1.ListOptions) {
		o.LabelSelector = labels.Set{api.TokenLabel: api.TokenManaged}.String()
	})
	typed, err := Transformed(informer, NewManagedSecret)
	if err != nil {
		return nil, err
	}
	return typed, typed.AddTypedIndexers(toolscache.TypedIndexers[*ManagedSecret]{
		ByAccount: func(s *ManagedSecret) ([]string, error) {
			return []string{s.Namespace + "/" + s.Annotations[api.ServiceAccountAnnotation]}, nil
		},
	})
}

// NewManagedSecret reduces a Secret.
func NewManagedSecret(secret *corev1.Secret) *ManagedSecret {
	reduced := &ManagedSecret{
		ObjectMeta: identity(secret.ObjectMeta),
		Type:       secret.Type,
		Immutable:  secret.Immutable != nil && *secret.Immutable,
	}
	reduced.Annotations = selectAnnotations(secret.Annotations, tokenAnnotations())
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

// FilledKeys are the keys of the data that were filled, sorted.
func (s *ManagedSecret) FilledKeys() []string {
	text := s.Annotations[api.FilledKeysAnnotation]
	if text == "" {
		return nil
	}
	keys := strings.Split(text, ",")
	slices.Sort(keys)
	return slices.Compact(keys)
}

// ContentSum is a SHA-256 of what data has under keys, which must be sorted; that
// there is nothing is told from that there is an empty value.
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

// hashWithLength keeps the border between two values part of the hash.
func hashWithLength(h hash.Hash, value []byte) {
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(value))))
	h.Write(value)
}
