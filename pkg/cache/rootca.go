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
	// DescriptionAnnotation says to people what the ConfigMap is for.
	DescriptionAnnotation = "kubernetes.io/description"
)

// RootCA is what is kept of a ConfigMap kube-root-ca.crt.
type RootCA struct {
	// ObjectMeta is reduced to identity and labels.
	metav1.ObjectMeta

	// CASum is the SHA-256 of the key ca.crt; of no bytes where there is none.
	CASum [sha256.Size]byte
	// HasCA tells whether there is a key ca.crt.
	HasCA bool
	// OtherKeys are the other keys in data, which do not belong there, sorted.
	OtherKeys []string
	// Described tells whether the description annotation is not empty.
	Described bool
	// Plain: nothing was dropped but data and description, so that whoever writes both
	// anew may write the whole object. Fields that are younger than this program are not
	// seen, as in-tree.
	Plain bool
}

// RootCAs caches the ConfigMap kube-root-ca.crt of every namespace and fetches
// no other ConfigMap.
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

// undescribed is cm less data and description, and less what the API server keeps where an
// object that is written does not name it.
func otherFields(cm *corev1.ConfigMap) *corev1.ConfigMap {
	rest := *cm
	rest.TypeMeta, rest.ManagedFields, rest.Data = metav1.TypeMeta{}, nil, nil
	rest.Annotations = maps.Clone(cm.Annotations)
	delete(rest.Annotations, DescriptionAnnotation)
	return &rest
}
