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

// NewEvents returns a recorder with component as the source of its events. The caller must
// call Shutdown. Only the logger of ctx is used: the last events of a process are recorded
// after ctx ended.
func NewEvents(ctx context.Context, component string) *Events {
	broadcaster := record.NewBroadcaster(record.WithContext(context.WithoutCancel(ctx)))
	return &Events{
		EventRecorder: broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: component}),
		broadcaster:   broadcaster,
	}
}

// Start starts to send events to the API server. Call it once.
func (e *Events) Start(client typedcorev1.EventsGetter) {
	e.broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: client.Events("")})
}

// Shutdown sends the events that were recorded, without waiting long, and stops.
func (e *Events) Shutdown() { e.broadcaster.Shutdown() }

// Reference returns a reference to an object of the core API group, for an event. Kind is for
// example "Secret".
func Reference(kind string, object metav1.Object) *corev1.ObjectReference {
	return &corev1.ObjectReference{
		Kind: kind, APIVersion: "v1",
		Namespace: object.GetNamespace(), Name: object.GetName(), UID: object.GetUID(),
	}
}

// NamespaceReference returns a reference to a namespace of which only the name is known.
func NamespaceReference(name string) *corev1.ObjectReference {
	return &corev1.ObjectReference{Kind: "Namespace", APIVersion: "v1", Name: name}
}
