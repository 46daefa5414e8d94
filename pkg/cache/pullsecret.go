package cache

import (
	"encoding/json"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/sakeeper/sakeeper/pkg/api"
)

// PullSecret is the reduced metadata of a Secret with the credentials of a registry. It has no data,
// which the API server does not send.
type PullSecret struct {
	// ObjectMeta has the identity. Of labels and annotations, it has only those of copies.
	metav1.ObjectMeta

	// Type is one of [PullSecretTypes].
	Type corev1.SecretType
	// Owned is true if the credentials are those that the field manager [api.PullSecretFieldManager]
	// has written: it loses the field to any other that changes the value.
	Owned bool
}

// IsCopy returns true if the Secret has the label of copies.
func (s *PullSecret) IsCopy() bool { return s.Labels[api.PullSecretLabel] == api.PullSecretCopy }

// PullSecretTypes are the types of Secrets that kubelets pull images with.
func PullSecretTypes() []corev1.SecretType {
	return []corev1.SecretType{corev1.SecretTypeDockerConfigJson, corev1.SecretTypeDockercfg}
}

// PullSecretKey returns the key of the data that has the credentials in a Secret of one of
// [PullSecretTypes].
func PullSecretKey(secretType corev1.SecretType) string {
	if secretType == corev1.SecretTypeDockercfg {
		return corev1.DockerConfigKey
	}
	return corev1.DockerConfigJsonKey
}

// PullSecrets returns an informer for the metadata of the Secrets with a type and labels, in one
// namespace or in all ([metav1.NamespaceAll]), with the index by namespace.
func PullSecrets(client metadata.Interface, namespace string, secretType corev1.SecretType, labelSelector string) (toolscache.TypedSharedIndexInformer[*PullSecret], error) {
	informer := metadatainformer.NewFilteredMetadataInformer(client, corev1.SchemeGroupVersion.WithResource("secrets"), namespace, 0, namespaceIndex(),
		func(options *metav1.ListOptions) {
			options.LabelSelector = labelSelector
			options.FieldSelector = fields.OneTermEqualSelector("type", string(secretType)).String()
		})
	return Transformed(informer.Informer(), func(secret *metav1.PartialObjectMetadata) *PullSecret { return NewPullSecret(secret, secretType) })
}

// NewPullSecret reduces the metadata of a Secret. Annotations are dropped, as kubectl apply keeps a copy
// of the data in one of them.
func NewPullSecret(secret *metav1.PartialObjectMetadata, secretType corev1.SecretType) *PullSecret {
	reduced := &PullSecret{ObjectMeta: identity(secret.ObjectMeta), Type: secretType}
	reduced.Labels = selectAnnotations(secret.Labels, []string{api.PullSecretLabel})
	reduced.Annotations = selectAnnotations(secret.Annotations, []string{api.CopiedFromAnnotation, api.CopiedVersionAnnotation})
	reduced.Owned = slices.ContainsFunc(secret.ManagedFields, func(entry metav1.ManagedFieldsEntry) bool {
		return entry.Manager == api.PullSecretFieldManager && ownsData(entry, PullSecretKey(secretType))
	})
	return reduced
}

// ownsData returns true if an entry of managedFields has a key of the data.
func ownsData(entry metav1.ManagedFieldsEntry, key string) bool {
	var owned struct {
		Data map[string]json.RawMessage `json:"f:data"`
	}
	if entry.FieldsV1 == nil || json.Unmarshal(entry.FieldsV1.GetRawBytes(), &owned) != nil {
		return false
	}
	_, ok := owned.Data["f:"+key]
	return ok
}
