package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is that of the types.
var GroupVersion = schema.GroupVersion{Group: "sakeeper.io", Version: "v1alpha1"} //nolint:gochecknoglobals // a constant

// AddToScheme registers the types.
func AddToScheme(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion, &ServiceAccountTemplate{}, &ServiceAccountTemplateList{})
	metav1.AddToGroupVersion(scheme, GroupVersion)
	return nil
}
