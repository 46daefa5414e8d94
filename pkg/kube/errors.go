package kube

import (
	"cmp"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/pkg/token"
)

// IsPermanent returns true if the API server will answer the same request with err again
// until a user changes an object, a policy or a role.
func IsPermanent(err error) bool {
	switch apierrors.ReasonForError(err) {
	case metav1.StatusReasonForbidden, metav1.StatusReasonInvalid, metav1.StatusReasonBadRequest,
		metav1.StatusReasonMethodNotAllowed, metav1.StatusReasonRequestEntityTooLarge, metav1.StatusReasonUnsupportedMediaType:
		return true
	default:
		return false
	}
}

// DefinitelyRejected returns true if err proves that the API server wrote nothing. A broken
// connection, a timeout or an internal error proves nothing.
func DefinitelyRejected(err error) bool {
	switch apierrors.ReasonForError(err) {
	case metav1.StatusReasonConflict, metav1.StatusReasonNotFound, metav1.StatusReasonAlreadyExists,
		metav1.StatusReasonUnauthorized, metav1.StatusReasonTooManyRequests, metav1.StatusReasonGone:
		return true
	default:
		return IsPermanent(err)
	}
}

// Redact returns err, or an error without its message if the message contains a token, as
// that of an admission webhook that describes an object may. The reason and code of an API
// status are kept, so that the functions of apierrors work on the result. Nil stays nil.
func Redact(err error) error {
	if err == nil || !token.ContainsToken(err.Error()) {
		return err
	}
	const redacted = "%s (the message is redacted, because it contains a token)"
	var apiStatus apierrors.APIStatus
	if !errors.As(err, &apiStatus) {
		return fmt.Errorf(redacted, "failed")
	}
	status := apiStatus.Status()
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Reason: status.Reason, Code: status.Code, Message: fmt.Sprintf(redacted, cmp.Or(string(status.Reason), "failed")),
	}}
}
