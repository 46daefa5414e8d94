package kube

import (
	"cmp"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/pkg/token"
)

// IsPermanent tells whether err is an answer that the API server will repeat until
// somebody changes something.
func IsPermanent(err error) bool {
	switch apierrors.ReasonForError(err) {
	case metav1.StatusReasonForbidden, metav1.StatusReasonInvalid, metav1.StatusReasonBadRequest,
		metav1.StatusReasonMethodNotAllowed, metav1.StatusReasonRequestEntityTooLarge, metav1.StatusReasonUnsupportedMediaType:
		return true
	default:
		return false
	}
}

// DefinitelyRejected tells whether err is the API server's word that it wrote nothing. A
// connection that broke, a timeout or an internal error is not.
func DefinitelyRejected(err error) bool {
	switch apierrors.ReasonForError(err) {
	case metav1.StatusReasonConflict, metav1.StatusReasonNotFound, metav1.StatusReasonAlreadyExists,
		metav1.StatusReasonUnauthorized, metav1.StatusReasonTooManyRequests, metav1.StatusReasonGone:
		return true
	default:
		return IsPermanent(err)
	}
}

// Redact replaces an error that quotes a token, as an admission webhook may that
// describes an object. What kind of answer it was stays.
func Redact(err error) error {
	if err == nil || !token.ContainsToken(err.Error()) {
		return err
	}
	const words = "%s, in words that are withheld because they quote a token"
	var answer apierrors.APIStatus
	if !errors.As(err, &answer) {
		return fmt.Errorf(words, "failed")
	}
	status := answer.Status()
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Reason: status.Reason, Code: status.Code, Message: fmt.Sprintf(words, cmp.Or(string(status.Reason), "failed")),
	}}
}
