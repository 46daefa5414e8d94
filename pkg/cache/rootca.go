package cache

import (
	"crypto/sha256"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/sakeeper/sakeeper/pkg/api"
)

const (
	// DescriptionAnnotation describes to users what the ConfigMap is for.
	DescriptionAnnotation = "kubernetes.io/description"
)

// RootCA is a reduced ConfigMap kube-root-ca.crt.
type RootCA struct {
	// ObjectMeta has the identity, the labels and the annotations that are settings.
	metav1.ObjectMeta

	// CASum is the SHA-256 of the key ca.crt; without the key, that of no bytes.
	CASum [sha256.Size]byte
	// HasCA is true if there is a key ca.crt.
	HasCA bool
	// OtherKeys are the other keys in data, sorted. The ConfigMap should have none.
	OtherKeys []string
	// Described is true if the description annotation is not empty.
	Described bool
	// Plain is true if only data and description were dropped: an update that sets both may
	// write the whole object. Fields that this version of the API library does not know are
	// not noticed, as in-tree.
	Plain bool
}

// RootCAs returns an informer of the ConfigMap kube-root-ca.crt of every namespace.
func RootCAs(client kubernetes.Interface) (toolscache.TypedSharedIndexInformer[*RootCA], error) {
	informer := coreinformers.NewFilteredConfigMapInformer(client, "", 0, namespaceIndex(), func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector("metadata.name", api.RootCAConfigMap).String()
	})
	return Transformed(informer, NewRootCA)
}

// NewRootCA reduces a ConfigMap.
func NewRootCA(cm *corev1.ConfigMap) *RootCA {
	reduced := &RootCA{
		ObjectMeta: identity(cm.ObjectMeta),
		Described:  cm.Annotations[DescriptionAnnotation] != "",
	}
	ca, ok := cm.Data[corev1.ServiceAccountRootCAKey]
	reduced.HasCA, reduced.CASum = ok, sha256.Sum256([]byte(ca))
	for _, key := range slices.Sorted(maps.Keys(cm.Data)) {
		if key != corev1.ServiceAccountRootCAKey {
			reduced.OtherKeys = append(reduced.OtherKeys, key)
		}
	}
	reduced.Plain = equality.Semantic.DeepEqual(otherFields(cm), &corev1.ConfigMap{ObjectMeta: reduced.ObjectMeta})
	return reduced
}

// otherFields returns cm without data and description, and without what an update
// cannot lose.
func otherFields(cm *corev1.ConfigMap) *corev1.ConfigMap {
	rest := *cm
	rest.TypeMeta, rest.ManagedFields, rest.Data = metav1.TypeMeta{}, nil, nil
	rest.Annotations = maps.Clone(cm.Annotations)
	delete(rest.Annotations, DescriptionAnnotation)
	return &rest
}
