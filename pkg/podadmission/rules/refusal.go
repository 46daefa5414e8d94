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

// LookupFailed is the refusal of pod because its ServiceAccount could not be found,
// for the reason err.
func LookupFailed(pod *corev1.Pod, err error) error {
	return forbidden(pod, fmt.Sprintf("error looking up service account %s/%s: %v", pod.Namespace, AccountName(pod), err))
}

// TokenLookupFailed is the refusal of pod because the token Secret of its
// ServiceAccount could not be looked up, for the reason err.
func TokenLookupFailed(pod *corev1.Pod, err error) error {
	return forbidden(pod, fmt.Sprintf("error looking up service account token for %s/%s: %v", pod.Namespace, AccountName(pod), err))
}

// AccountNotFound is the reason of [LookupFailed] where there is no such
// ServiceAccount.
func AccountNotFound(name string) error {
	return apierrors.NewNotFound(schema.GroupResource{Resource: "serviceaccount"}, name)
}

// forbidden words a refusal as every admission plugin does. The name of a pod may not
// be made yet.
func forbidden(pod *corev1.Pod, why string) error {
	name := "Unknown"
	switch {
	case pod.Name != "":
		name = pod.Name
	case pod.GenerateName != "":
		name = pod.GenerateName
	}
	return apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, name, errors.New(why))
}

// internal is what becomes of an error that in-tree does not word as a refusal.
func internal(why string) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Message: why,
	}}
}

// noToken asks the client to try again in a second.
func noToken(account *corev1.ServiceAccount) error {
	err := apierrors.NewServerTimeout(schema.GroupResource{Resource: "serviceaccounts"}, "create pod", 1)
	err.ErrStatus.Message = fmt.Sprintf("No API token found for service account %q, retry after the token is automatically created and added to the service account", account.Name)
	return err
}
