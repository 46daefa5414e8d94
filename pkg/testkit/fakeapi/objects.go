package fakeapi

import (
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/meta/testrestmapper"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
)

// pointer is the type of objects of kind T.
type pointer[T any] interface {
	*T
	runtime.Object
}

// Get returns the object of that name, "<namespace>/<name>" or "<name>", or nil if there is none.
func Get[T any, P pointer[T]](s *Server, name string) P {
	namespace, name := split(name)
	found, err := s.tracker.Get(resourceOf(P(new(T))), namespace, name)
	if err != nil {
		return nil
	}
	return found.(P)
}

// List returns the objects of a namespace, in the order of their names. An empty namespace means all.
func List[T any, P pointer[T]](s *Server, namespace string) []P {
	obj := P(new(T))
	list, err := s.tracker.List(resourceOf(obj), kindOf(obj), namespace)
	if err != nil {
		panic("fakeapi: internal error: " + err.Error()) // the scheme has the kind
	}
	var all []P
	for _, item := range items(list) {
		all = append(all, item.(P))
	}
	slices.SortFunc(all, func(a, b P) int { return strings.Compare(accessor(a).GetName(), accessor(b).GetName()) })
	return all
}

// Set creates or replaces an object, as another client does. It gets a new resourceVersion, and
// keeps its UID.
func (s *Server) Set(obj runtime.Object) {
	obj = obj.DeepCopyObject()
	if err := s.tracker.set(resourceOf(obj), obj, accessor(obj).GetNamespace()); err != nil {
		panic("fakeapi: internal error: " + err.Error()) // the scheme has the kind
	}
}

// Remove deletes an object, as another client does. An object that does not exist is ignored.
func (s *Server) Remove(obj runtime.Object) {
	o := accessor(obj)
	_ = s.tracker.Delete(resourceOf(obj), o.GetNamespace(), o.GetName()) // not found
}

func split(name string) (namespace, rest string) {
	if namespace, rest, ok := strings.Cut(name, "/"); ok {
		return namespace, rest
	}
	return "", name
}

func kindOf(obj runtime.Object) schema.GroupVersionKind {
	all, _, err := scheme.Scheme.ObjectKinds(obj)
	if err != nil {
		panic("fakeapi: internal error: " + err.Error()) // clientset has no such kind
	}
	return all[0]
}

func resourceOf(obj runtime.Object) schema.GroupVersionResource {
	resource, _ := meta.UnsafeGuessKindToResource(kindOf(obj)) // as client-go's tracker does
	return resource
}

// kinds maps resources to kinds.
var kinds = sync.OnceValue(func() meta.RESTMapper { return testrestmapper.TestOnlyStaticRESTMapper(scheme.Scheme) })

func items(list runtime.Object) []runtime.Object {
	all, err := meta.ExtractList(list)
	if err != nil {
		panic("fakeapi: internal error: " + err.Error()) // the tracker returns lists
	}
	return all
}

// selected returns list with the objects that selector matches.
func selected(list runtime.Object, selector fields.Selector) (runtime.Object, error) {
	var matching []runtime.Object
	for _, obj := range items(list) {
		if matches(obj, selector) {
			matching = append(matching, obj)
		}
	}
	return list, meta.SetList(list, matching)
}

func matches(obj runtime.Object, selector fields.Selector) bool {
	o, err := meta.Accessor(obj)
	if err != nil || selector == nil {
		return true // a Status
	}
	set := fields.Set{"metadata.name": o.GetName(), "metadata.namespace": o.GetNamespace()}
	if secret, ok := obj.(*corev1.Secret); ok {
		set["type"] = string(secret.Type)
	}
	return selector.Matches(set)
}

// metadataOf converts an object or a list to what a metadata client gets.
func metadataOf(obj runtime.Object) (runtime.Object, error) {
	if !meta.IsListType(obj) {
		return partial(obj), nil
	}
	list := &metav1.List{}
	for _, item := range items(obj) {
		list.Items = append(list.Items, runtime.RawExtension{Object: partial(item)})
	}
	from, err := meta.ListAccessor(obj)
	if err == nil {
		list.ResourceVersion = from.GetResourceVersion()
	}
	return list, err
}

func partial(obj runtime.Object) *metav1.PartialObjectMetadata {
	converted := meta.AsPartialObjectMetadata(accessor(obj))
	converted.SetGroupVersionKind(kindOf(obj))
	return converted
}
