package rules

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/sakeeper/sakeeper/pkg/podadmission/secretrefs"
)

// unlistedSecret returns the message for the first reference in pod, within scope, to a Secret that
// account does not list; empty if there is none.
func unlistedSecret(pod *corev1.Pod, account *corev1.ServiceAccount, scope Scope) string {
	for reference := range secretrefs.All(&pod.Spec) {
		if (scope == AllScope || inTreeLimits(reference)) && !lists(account, reference) {
			return message(reference, account)
		}
	}
	return ""
}

// unlistedEphemeralSecret is unlistedSecret for ephemeral containers, with either scope: they can
// refer to Secrets only in env and envFrom.
func unlistedEphemeralSecret(pod *corev1.Pod, account *corev1.ServiceAccount) string {
	for reference := range secretrefs.All(&pod.Spec) {
		if reference.Container == secretrefs.Ephemeral && !lists(account, reference) {
			return message(reference, account)
		}
	}
	return ""
}

func inTreeLimits(reference secretrefs.Reference) bool {
	switch reference.Kind {
	case secretrefs.SecretVolume, secretrefs.ImagePullSecret:
		return true
	case secretrefs.Env, secretrefs.EnvFrom:
		return reference.Container != secretrefs.Ephemeral
	default:
		return false
	}
}

func lists(account *corev1.ServiceAccount, reference secretrefs.Reference) bool {
	if reference.Kind == secretrefs.ImagePullSecret {
		for i := range account.ImagePullSecrets {
			if account.ImagePullSecrets[i].Name == reference.Name {
				return true
			}
		}
		return false
	}
	for i := range account.Secrets {
		if account.Secrets[i].Name == reference.Name {
			return true
		}
	}
	return false
}

// message refuses reference with the text of in-tree, or a similar one if in-tree has none.
func message(reference secretrefs.Reference, account *corev1.ServiceAccount) string {
	const refused = "is not allowed because service account %s does not reference that "
	switch reference.Kind {
	case secretrefs.ImagePullSecret:
		return fmt.Sprintf(`imagePullSecrets[%d].name="%s" `+refused+"imagePullSecret", reference.Index, reference.Name, account.Name)
	case secretrefs.Env:
		return fmt.Sprintf(`%s %s with envVar %s referencing secret.secretName="%s" `+refused+"secret",
			containerName(reference.Container), reference.Holder, reference.Variable, reference.Name, account.Name)
	case secretrefs.EnvFrom:
		return fmt.Sprintf(`%s %s with envFrom referencing secret.secretName="%s" `+refused+"secret",
			containerName(reference.Container), reference.Holder, reference.Name, account.Name)
	case secretrefs.SecretVolume:
		return fmt.Sprintf(`volume with secret.secretName="%s" `+refused+"secret", reference.Name, account.Name)
	default:
		return fmt.Sprintf(`%s="%s" `+refused+"secret", reference.Path(), reference.Name, account.Name)
	}
}

func containerName(kind secretrefs.ContainerKind) string {
	switch kind {
	case secretrefs.Init:
		return "init container"
	case secretrefs.Ephemeral:
		return "ephemeral container"
	default:
		return "container"
	}
}
