package rules

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/sakeeper/sakeeper/pkg/podadmission/secretrefs"
)

// Validate returns an error if pod may not be created, for the first reason that it finds. The error
// is an [apierrors.APIStatus]. account may be nil if [NeedsAccount] returns false.
func Validate(pod *corev1.Pod, account *corev1.ServiceAccount, s Settings) error {
	if isMirror(pod) {
		for _, rule := range []func(*corev1.Pod) error{mirrorWithoutAccount, mirrorWithoutSecrets, mirrorWithoutToken} {
			if err := rule(pod); err != nil {
				return err
			}
		}
		return nil
	}
	if AccountName(pod) == "" {
		return noAccount(pod)
	}
	if !s.limits(account) {
		return nil
	}
	if message := unlistedSecret(pod, account, s.SecretReferenceScope); message != "" {
		return forbidden(pod, message)
	}
	return nil
}

// ValidateEphemeralContainers returns an error if pod may not have its ephemeral containers, for the
// first reason that it finds. The error is an [apierrors.APIStatus]. account may be nil if
// [AccountName] is empty.
func ValidateEphemeralContainers(pod *corev1.Pod, account *corev1.ServiceAccount, s Settings) error {
	if AccountName(pod) == "" {
		return noAccount(pod)
	}
	if !s.limits(account) {
		return nil
	}
	// As in-tree, the code is 500 here, and 403 for all other refusals.
	if message := unlistedEphemeralSecret(pod, account); message != "" {
		return internal(message)
	}
	return nil
}

func noAccount(pod *corev1.Pod) error {
	return forbidden(pod, fmt.Sprintf("no service account specified for pod %s/%s", pod.Namespace, pod.Name))
}

func mirrorWithoutAccount(pod *corev1.Pod) error {
	if AccountName(pod) == "" {
		return nil
	}
	return forbidden(pod, "a mirror pod may not reference service accounts")
}

func mirrorWithoutSecrets(pod *corev1.Pod) error {
	for reference := range secretrefs.All(&pod.Spec) {
		if reference.Name != "" {
			return forbidden(pod, "a mirror pod may not reference secrets")
		}
	}
	return nil
}

func mirrorWithoutToken(pod *corev1.Pod) error {
	if !secretrefs.ProjectsToken(&pod.Spec) {
		return nil
	}
	return forbidden(pod, "a mirror pod may not use ServiceAccountToken volume projections")
}
