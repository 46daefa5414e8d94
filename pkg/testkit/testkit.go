// Package testkit builds the objects of unit tests: complete enough to be told
// apart, the same in every run.
//
// Every object has a fixed UID of its kind, [ResourceVersion] and [Instant] as
// its creation time, unless an [Option] says otherwise.
package testkit

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// What objects have when nothing else is said. OtherUID is for a second life of
// an object, of whatever kind.
const (
	NamespaceUID = types.UID("a0000000-0000-4000-8000-000000000001")
	AccountUID   = types.UID("b0000000-0000-4000-8000-000000000001")
	SecretUID    = types.UID("c0000000-0000-4000-8000-000000000001")
	ConfigMapUID = types.UID("d0000000-0000-4000-8000-000000000001")
	OtherUID     = types.UID("e0000000-0000-4000-8000-000000000002")

	ResourceVersion = "100"
)

// Instant is the one moment of all fixtures.
func Instant() time.Time { return time.Date(2026, time.January, 2, 3, 4, 5, 0, time.UTC) }

// Option changes an object that is being built; one that does not fit the kind
// panics.
type Option func(metav1.Object)

// Namespace is an active namespace.
func Namespace(name string, opts ...Option) *corev1.Namespace {
	return build(&corev1.Namespace{Status: corev1.NamespaceStatus{Phase: corev1.NamespaceActive}}, name, NamespaceUID, opts)
}

// ServiceAccount is an account without references; name is "namespace/name".
func ServiceAccount(name string, opts ...Option) *corev1.ServiceAccount {
	return build(&corev1.ServiceAccount{}, name, AccountUID, opts)
}

// Secret is an empty Secret of type kubernetes.io/service-account-token that names
// no account; name is "namespace/name".
func Secret(name string, opts ...Option) *corev1.Secret {
	return build(&corev1.Secret{Type: corev1.SecretTypeServiceAccountToken}, name, SecretUID, opts)
}

// ConfigMap is an empty one; name is "namespace/name".
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

// WithAccount makes a Secret name its ServiceAccount.
func WithAccount(name string) Option { return WithAnnotation(corev1.ServiceAccountNameKey, name) }

// WithAccountUID makes a Secret name the UID of its ServiceAccount.
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

// WithReferences adds names to the secrets of a ServiceAccount.
func WithReferences(names ...string) Option {
	return func(o metav1.Object) {
		account := o.(*corev1.ServiceAccount)
		for _, name := range names {
			account.Secrets = append(account.Secrets, corev1.ObjectReference{Name: name})
		}
	}
}

// WithManagedFields adds an entry as every API server does.
func WithManagedFields() Option {
	return func(o metav1.Object) {
		o.SetManagedFields([]metav1.ManagedFieldsEntry{{
			Manager: "kubectl", Operation: metav1.ManagedFieldsOperationUpdate, FieldsType: "FieldsV1",
			FieldsV1: metav1.NewFieldsV1(`{"f:data":{}}`),
		}})
	}
}

// Deleting makes an object one that waits for its finalizers.
func Deleting() Option {
	return func(o metav1.Object) {
		now := metav1.NewTime(Instant())
		o.SetDeletionTimestamp(&now)
		o.SetFinalizers([]string{"example.com/wait"})
	}
}

// Terminating makes a namespace one on its way out.
func Terminating() Option {
	return func(o metav1.Object) {
		o.(*corev1.Namespace).Status.Phase = corev1.NamespaceTerminating
	}
}
