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

// noToken returns a refusal of a pod whose ServiceAccount lists no token Secret that exists. It asks the client
// to retry after a second, because a controller may make one.
func noToken(account *corev1.ServiceAccount) error {
	return retry(fmt.Sprintf("No API token found for service account %q: it lists no token Secret that exists. Unless a controller makes one (sakeeper controllers --auto-generate-token-secrets), create a Secret of type %s for it and add it to the secrets of the service account",
		account.Name, corev1.SecretTypeServiceAccountToken))
}

// TokenNotFilled returns the refusal of a pod whose ServiceAccount lists that token Secret, which has
// no token yet. It asks the client to retry after a second, and is an [apierrors.APIStatus].
func TokenNotFilled(account *corev1.ServiceAccount, secret string) error {
	return retry(fmt.Sprintf("No API token found for service account %q: its Secret %q is not filled yet, retry after a controller has written a token to it", account.Name, secret))
}

// retry returns a refusal that asks the client to retry after a second.
func retry(message string) error {
	err := apierrors.NewServerTimeout(schema.GroupResource{Resource: "serviceaccounts"}, "create pod", 1)
	err.ErrStatus.Message = message
	return err
}
