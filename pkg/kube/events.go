package kube

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"
)

// Events records events about objects. Events that are recorded before Start are kept.
type Events struct {
	record.EventRecorder

	broadcaster record.EventBroadcaster
}

// NewEvents makes a recorder whose events name component as their source. The caller must call
// Shutdown. Events outlive ctx, of which only the logger is used: the last events of a process
// are about its end.
func NewEvents(ctx context.Context, component string) *Events {
	broadcaster := record.NewBroadcaster(record.WithContext(context.WithoutCancel(ctx)))
	return &Events{
		EventRecorder: broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: component}),
		broadcaster:   broadcaster,
	}
}

// Start sends events to the API server. Call it once, when the API server answers.
func (e *Events) Start(client typedcorev1.EventsGetter) {
	e.broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: client.Events("")})
}

// Shutdown sends what was recorded, as far as that takes no long time, and ends.
func (e *Events) Shutdown() { e.broadcaster.Shutdown() }

// Reference refers to an object of the core API group in an event: kind is for example
// "Secret".
func Reference(kind string, object metav1.Object) *corev1.ObjectReference {
	return &corev1.ObjectReference{
		Kind: kind, APIVersion: "v1",
		Namespace: object.GetNamespace(), Name: object.GetName(), UID: object.GetUID(),
	}
}

// NamespaceReference refers to a namespace of which only the name is known.
func NamespaceReference(name string) *corev1.ObjectReference {
	return &corev1.ObjectReference{Kind: "Namespace", APIVersion: "v1", Name: name}
}
