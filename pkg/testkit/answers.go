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

// The answers of an API server that refuses a write, or a read.

// Conflict is the answer to a precondition that does not hold.
func Conflict() error {
	return apierrors.NewConflict(things(), "name", errors.New("the object has been modified"))
}

// NotFound is the answer for an object that is not there.
func NotFound() error { return apierrors.NewNotFound(things(), "name") }

// AlreadyExists is the answer to a create that came second.
func AlreadyExists() error { return apierrors.NewAlreadyExists(things(), "name") }

// NamespaceTerminating is the answer to a create in a namespace on its way out.
func NamespaceTerminating() error {
	err := apierrors.NewForbidden(things(), "name", errors.New("unable to create new content in namespace team because it is being terminated"))
	err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes,
		metav1.StatusCause{Type: corev1.NamespaceTerminatingCause, Field: "metadata.namespace"})
	return err
}

// QuotaExceeded is the answer to a create that a quota does not allow.
func QuotaExceeded() error {
	return apierrors.NewForbidden(things(), "name", errors.New("exceeded quota: few"))
}

// Invalid is the answer to a write that validation refuses; like many of the real
// ones, its text quotes value.
func Invalid(path, value string) error {
	return apierrors.NewInvalid(schema.GroupKind{Kind: "Kind"}, "name",
		field.ErrorList{field.Invalid(field.NewPath(path), value, "field is immutable when `immutable` is set")})
}

// InternalError is an answer that says nothing.
func InternalError() error { return apierrors.NewInternalError(errors.New("etcd is slow")) }

// Events takes what recorder holds.
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
