// Package v1alpha1 has the types of sakeeper.io/v1alpha1: [ServiceAccountTemplate].
//
// The custom resource definition and the deep copies are made from it by `make manifests`.
//
// +kubebuilder:object:generate=true
// +groupName=sakeeper.io
package v1alpha1
