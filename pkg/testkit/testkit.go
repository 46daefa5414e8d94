// Package testkit builds Kubernetes objects for unit tests.
//
// Every object has the fixed UID of its kind, [ResourceVersion], and [Instant] as its
// creation time, unless an [Option] changes them.
package testkit

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// The defaults of the objects. OtherUID is for an object of any kind that was deleted and
// created again.
const (
	NamespaceUID = types.UID("a0000000-0000-4000-8000-000000000001")
	AccountUID   = types.UID("b0000000-0000-4000-8000-000000000001")
	SecretUID    = types.UID("c0000000-0000-4000-8000-000000000001")
	ConfigMapUID = types.UID("d0000000-0000-4000-8000-000000000001")
	OtherUID     = types.UID("e0000000-0000-4000-8000-000000000002")

	ResourceVersion = "100"
)

// Instant is the time that all objects use.
func Instant() time.Time { return time.Date(2026, time.January, 2, 3, 4, 5, 0, time.UTC) }

// Option changes an object that is being built. It panics if it does not fit the kind of
// the object.
type Option func(metav1.Object)

// Namespace returns an active namespace.
func Namespace(name string, opts ...Option) *corev1.Namespace {
	return build(&corev1.Namespace{Status: corev1.NamespaceStatus{Phase: corev1.NamespaceActive}}, name, NamespaceUID, opts)
}

// ServiceAccount returns one without references; name is "namespace/name".
func ServiceAccount(name string, opts ...Option) *corev1.ServiceAccount {
	return build(&corev1.ServiceAccount{}, name, AccountUID, opts)
}

// Secret returns an empty Secret of type kubernetes.io/service-account-token, without the
// annotation that names its ServiceAccount; name is "namespace/name".
func Secret(name string, opts ...Option) *corev1.Secret {
	return build(&corev1.Secret{Type: corev1.SecretTypeServiceAccountToken}, name, SecretUID, opts)
}

// ConfigMap returns an empty one; name is "namespace/name".
func ConfigMap(name string, opts ...Option) *corev1.ConfigMap {
	return build(&corev1.ConfigMap{}, name, ConfigMapUID, opts)
}

func build[T metav1.Object](obj T, name string, uid types.UID, opts []Option) T {
	if namespace, rest, ok := strings.Cut(name, "/"); ok {
		obj.SetNamespace(namespace)
		name = rest
	}
	obj.SetName(name)
	obj.SetUID(uid)
	obj.SetResourceVersion(ResourceVersion)
	obj.SetCreationTimestamp(metav1.NewTime(Instant()))
	for _, opt := range opts {
		opt(obj)
	}
	return obj
}

// WithUID sets the UID.
func WithUID(uid types.UID) Option {
	return func(o metav1.Object) { o.SetUID(uid) }
}

// WithResourceVersion sets the resource version.
func WithResourceVersion(version string) Option {
	return func(o metav1.Object) { o.SetResourceVersion(version) }
}

// WithLabel adds a label.
func WithLabel(key, value string) Option {
	return func(o metav1.Object) {
		labels := o.GetLabels()
		if labels == nil {
			labels = map[string]string{}
		}
		labels[key] = value
		o.SetLabels(labels)
	}
}

// WithAnnotation adds an annotation.
func WithAnnotation(key, value string) Option {
	return func(o metav1.Object) {
		annotations := o.GetAnnotations()
		if annotations == nil {
			annotations = map[string]string{}
		}
		annotations[key] = value
		o.SetAnnotations(annotations)
	}
}

// WithAccount sets the annotation of a Secret that names its ServiceAccount.
func WithAccount(name string) Option { return WithAnnotation(corev1.ServiceAccountNameKey, name) }

// WithAccountUID sets the annotation of a Secret that has the UID of its ServiceAccount.
func WithAccountUID(uid types.UID) Option {
	return WithAnnotation(corev1.ServiceAccountUIDKey, string(uid))
}

// WithData adds a key to the data of a Secret or ConfigMap.
func WithData(key, value string) Option {
	return func(o metav1.Object) {
		switch o := o.(type) {
		case *corev1.Secret:
			if o.Data == nil {
				o.Data = map[string][]byte{}
			}
			o.Data[key] = []byte(value)
		case *corev1.ConfigMap:
			if o.Data == nil {
				o.Data = map[string]string{}
			}
			o.Data[key] = value
		default:
			panic("testkit: WithData is for Secrets and ConfigMaps")
		}
	}
}

// WithReferences adds Secrets of those names to the secrets field of a ServiceAccount.
func WithReferences(names ...string) Option {
	return func(o metav1.Object) {
		account := o.(*corev1.ServiceAccount)
		for _, name := range names {
			account.Secrets = append(account.Secrets, corev1.ObjectReference{Name: name})
		}
	}
}

// WithManagedFields sets managedFields as an API server does.
func WithManagedFields() Option {
	return func(o metav1.Object) {
		o.SetManagedFields([]metav1.ManagedFieldsEntry{{
			Manager: "kubectl", Operation: metav1.ManagedFieldsOperationUpdate, FieldsType: "FieldsV1",
			FieldsV1: metav1.NewFieldsV1(`{"f:data":{}}`),
		}})
	}
}

// Deleting sets a deletion timestamp and a finalizer.
func Deleting() Option {
	return func(o metav1.Object) {
		now := metav1.NewTime(Instant())
		o.SetDeletionTimestamp(&now)
		o.SetFinalizers([]string{"example.com/wait"})
	}
}

// Terminating sets the phase of a namespace.
func Terminating() Option {
	return func(o metav1.Object) {
		o.(*corev1.Namespace).Status.Phase = corev1.NamespaceTerminating
	}
}
