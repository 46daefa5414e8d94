package cache

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	toolscache "k8s.io/client-go/tools/cache"
)

// Namespaces returns an informer of all namespaces, reduced to metadata (without annotations
// other than sakeeper's settings) and phase.
func Namespaces(client kubernetes.Interface) (toolscache.TypedSharedIndexInformer[*corev1.Namespace], error) {
	informer := coreinformers.NewNamespaceInformer(client, 0, nil)
	return Transformed(informer, func(ns *corev1.Namespace) *corev1.Namespace {
		return &corev1.Namespace{
			ObjectMeta: identity(ns.ObjectMeta),
			Status:     corev1.NamespaceStatus{Phase: ns.Status.Phase},
		}
	})
}

// ServiceAccounts returns an informer of all ServiceAccounts, reduced to metadata (without
// annotations other than sakeeper's settings) and secrets: write them only by patch.
func ServiceAccounts(client kubernetes.Interface) (toolscache.TypedSharedIndexInformer[*corev1.ServiceAccount], error) {
	informer := coreinformers.NewServiceAccountInformer(client, "", 0, namespaceIndex())
	return Transformed(informer, func(account *corev1.ServiceAccount) *corev1.ServiceAccount {
		return &corev1.ServiceAccount{ObjectMeta: identity(account.ObjectMeta), Secrets: account.Secrets}
	})
}

// Get returns the cached object with key "name" or "namespace/name"; ok is false if there is
// none. The object must not be changed.
func Get[T toolscache.Object](informer toolscache.TypedSharedIndexInformer[T], key string) (obj T, ok bool) {
	found, ok, err := informer.GetStore().GetByKey(key)
	if err != nil {
		panic("cache: internal error: " + err.Error()) // the store of an informer returns none
	}
	if ok {
		obj, ok = found.(T)
	}
	return obj, ok
}

// IndexByNamespace adds the index of objects by namespace to an informer that may have it already.
func IndexByNamespace(informer toolscache.SharedIndexInformer) error {
	if _, ok := informer.GetIndexer().GetIndexers()[toolscache.NamespaceIndex]; ok {
		return nil
	}
	return informer.AddIndexers(namespaceIndex())
}

func namespaceIndex() toolscache.Indexers {
	return toolscache.Indexers{toolscache.NamespaceIndex: toolscache.MetaNamespaceIndexFunc}
}

// identity returns the metadata that identifies an object and its version, the labels, and
// only those annotations that are settings.
func identity(m metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace:         m.Namespace,
		Name:              m.Name,
		UID:               m.UID,
		ResourceVersion:   m.ResourceVersion,
		CreationTimestamp: m.CreationTimestamp,
		DeletionTimestamp: m.DeletionTimestamp,
		Labels:            m.Labels,
		Annotations:       settingAnnotations(m.Annotations),
	}
}

// Transformed sets reduce as the transform of the informer, which must not be started, and
// returns the informer with the type of the reduced objects.
func Transformed[From any, To toolscache.Object](informer toolscache.SharedIndexInformer, reduce func(From) To) (toolscache.TypedSharedIndexInformer[To], error) {
	err := informer.SetTransform(func(obj any) (any, error) {
		if o, ok := obj.(From); ok {
			return reduce(o), nil
		}
		if o, ok := obj.(To); ok { // a transform may get its own result again
			return o, nil
		}
		return nil, fmt.Errorf("cache: unexpected %T", obj)
	})
	if err != nil {
		return nil, err
	}
	return toolscache.NewTypedSharedIndexInformer[To](informer), nil
}
