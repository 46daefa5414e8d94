package rules

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/sakeeper/sakeeper/pkg/podadmission/secretrefs"
)

// Validate says why pod may not be created, with the first reason that there is; nil:
// it may. The account of a pod that needs none may be nil. An error is an
// [apierrors.APIStatus].
func Validate(pod *corev1.Pod, account *corev1.ServiceAccount, s Settings) error {
	if IsMirror(pod) {
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
	if why := unlisted(pod, account, s.SecretReferenceScope); why != "" {
		return forbidden(pod, why)
	}
	return nil
}

// ValidateEphemeralContainers says why pod may not be given the ephemeral containers
// that it has now, with the first reason that there is; nil: it may. The account may
// be nil where [AccountName] is empty. An error is an [apierrors.APIStatus].
func ValidateEphemeralContainers(pod *corev1.Pod, account *corev1.ServiceAccount, s Settings) error {
	if AccountName(pod) == "" {
		return noAccount(pod)
	}
	if !s.limits(account) {
		return nil
	}
	// In-tree answers 500 here and 403 to all else.
	if why := unlistedEphemeral(pod, account); why != "" {
		return internal(why)
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
