package testkit

import (
	"errors"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/client-go/tools/record"
)

// The errors of an API server that refuses a request.

// Conflict is the error for a precondition that does not hold.
func Conflict() error {
	return apierrors.NewConflict(things(), "name", errors.New("the object has been modified"))
}

// NotFound is the error for an object that does not exist.
func NotFound() error { return apierrors.NewNotFound(things(), "name") }

// AlreadyExists is the error for a create of an object that exists.
func AlreadyExists() error { return apierrors.NewAlreadyExists(things(), "name") }

// NamespaceTerminating is the error for a create in a namespace that is being deleted.
func NamespaceTerminating() error {
	err := apierrors.NewForbidden(things(), "name", errors.New("unable to create new content in namespace team because it is being terminated"))
	err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes,
		metav1.StatusCause{Type: corev1.NamespaceTerminatingCause, Field: "metadata.namespace"})
	return err
}

// QuotaExceeded is the error for a create that a ResourceQuota does not allow.
func QuotaExceeded() error {
	return apierrors.NewForbidden(things(), "name", errors.New("exceeded quota: few"))
}

// Invalid is the error for a write that validation refuses. Its text quotes value, as
// many of the real errors do.
func Invalid(path, value string) error {
	return apierrors.NewInvalid(schema.GroupKind{Kind: "Kind"}, "name",
		field.ErrorList{field.Invalid(field.NewPath(path), value, "field is immutable when `immutable` is set")})
}

// InternalError is an error that leaves open whether the request had an effect.
func InternalError() error { return apierrors.NewInternalError(errors.New("etcd is slow")) }

// Events removes the recorded events from recorder, and returns them.
func Events(recorder *record.FakeRecorder) []string {
	var events []string
	for {
		select {
		case event := <-recorder.Events:
			events = append(events, event)
		default:
			return events
		}
	}
}

func things() schema.GroupResource { return schema.GroupResource{Resource: "things"} }
