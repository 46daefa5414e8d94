package rules

import (
	"errors"
	"fmt"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// LookupFailed returns the refusal of a pod whose ServiceAccount could not be read because of err. It
// is an [apierrors.APIStatus].
func LookupFailed(pod *corev1.Pod, err error) error {
	return forbidden(pod, fmt.Sprintf("error looking up service account %s/%s: %v", pod.Namespace, AccountName(pod), err))
}

// TokenLookupFailed returns the refusal of a pod for which the token Secret of its ServiceAccount
// could not be read because of err. It is an [apierrors.APIStatus].
func TokenLookupFailed(pod *corev1.Pod, err error) error {
	return forbidden(pod, fmt.Sprintf("error looking up service account token for %s/%s: %v", pod.Namespace, AccountName(pod), err))
}

// AccountNotFound returns the error for [LookupFailed] if the ServiceAccount does not exist.
func AccountNotFound(name string) error {
	return apierrors.NewNotFound(schema.GroupResource{Resource: "serviceaccount"}, name)
}

// forbidden returns a refusal as admission plugins make it. The name of a pod may not be generated
// yet.
func forbidden(pod *corev1.Pod, message string) error {
	name := "Unknown"
	switch {
	case pod.Name != "":
		name = pod.Name
	case pod.GenerateName != "":
		name = pod.GenerateName
	}
	return apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, name, errors.New(message))
}

// internal returns a refusal that in-tree makes with a plain error.
func internal(message string) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Message: message,
	}}
}

// noToken returns a refusal that asks the client to retry after a second.
func noToken(account *corev1.ServiceAccount) error {
	err := apierrors.NewServerTimeout(schema.GroupResource{Resource: "serviceaccounts"}, "create pod", 1)
	err.ErrStatus.Message = fmt.Sprintf("No API token found for service account %q, retry after the token is automatically created and added to the service account", account.Name)
	return err
}
