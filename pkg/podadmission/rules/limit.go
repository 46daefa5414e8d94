package rules

import (
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/sakeeper/sakeeper/pkg/podadmission/secretrefs"
)

// unlistedSecret returns the message for the first reference in pod, within scope, to a Secret that
// account does not list; empty if there is none.
func unlistedSecret(pod *corev1.Pod, account *corev1.ServiceAccount, scope Scope) string {
	for reference := range secretrefs.All(&pod.Spec) {
		if scope.Limits(reference.Kind, reference.Container) && !lists(account, reference) {
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

// Limits returns true if references of that kind are limited when a pod is created. container is the
// kind of the container that has the reference, or NoContainer.
func (s Scope) Limits(kind secretrefs.Kind, container secretrefs.ContainerKind) bool {
	if s == AllScope {
		return true
	}
	switch kind {
	case secretrefs.SecretVolume, secretrefs.ImagePullSecret:
		return true
	case secretrefs.Env, secretrefs.EnvFrom:
		return container != secretrefs.Ephemeral
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

// The places of the values in the result of [RefusalText], besides those of [secretrefs.Kind.Path].
const (
	AccountPlace  = "{account}"  // the name of the ServiceAccount
	SecretPlace   = "{secret}"   // the name of the Secret
	HolderPlace   = "{holder}"   // the name of the container
	VariablePlace = "{variable}" // the name of the environment variable
)

// RefusalText returns the message for references of that kind that the ServiceAccount does not list,
// with places for the values. It is the text of in-tree, or a similar one if in-tree has none.
func RefusalText(kind secretrefs.Kind, container secretrefs.ContainerKind) string {
	const refused = `="` + SecretPlace + `" is not allowed because service account ` + AccountPlace + " does not reference that "
	switch kind {
	case secretrefs.ImagePullSecret:
		return "imagePullSecrets[" + secretrefs.IndexPlace + "].name" + refused + "imagePullSecret"
	case secretrefs.Env:
		return containerName(container) + " " + HolderPlace + " with envVar " + VariablePlace + " referencing secret.secretName" + refused + "secret"
	case secretrefs.EnvFrom:
		return containerName(container) + " " + HolderPlace + " with envFrom referencing secret.secretName" + refused + "secret"
	case secretrefs.SecretVolume:
		return "volume with secret.secretName" + refused + "secret"
	default:
		return kind.Path(container) + refused + "secret"
	}
}

// message refuses reference.
func message(reference secretrefs.Reference, account *corev1.ServiceAccount) string {
	return strings.NewReplacer(
		AccountPlace, account.Name, SecretPlace, reference.Name, HolderPlace, reference.Holder, VariablePlace, reference.Variable,
		secretrefs.IndexPlace, strconv.Itoa(reference.Index), secretrefs.InnerPlace, strconv.Itoa(reference.Inner),
	).Replace(RefusalText(reference.Kind, reference.Container))
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
