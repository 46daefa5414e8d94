package rules

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/podadmission/secretrefs"
)

// Changes is what [Mutate] added to a pod. Nothing that the pod had was changed. The zero value is no
// change.
type Changes struct {
	// PullSecrets are all pull secrets of the pod; nil if none were added.
	PullSecrets []corev1.LocalObjectReference
	// Volume is the last volume of the pod; nil if none was added.
	Volume *corev1.Volume
	// Mounted are the containers to which Mount was added, as their last mount.
	Mounted []secretrefs.Place
	Mount   corev1.VolumeMount
}

// isMirror returns true if pod is the mirror of a static pod.
func isMirror(pod *corev1.Pod) bool {
	_, ok := pod.Annotations[corev1.MirrorPodAnnotationKey]
	return ok
}

// NeedsAccount returns true if the rules need the ServiceAccount of pod: it names one, and is not a
// mirror pod. After [Default], account may be nil for the other pods.
func NeedsAccount(pod *corev1.Pod) bool { return !isMirror(pod) && AccountName(pod) != "" }

// AccountName returns the name of the ServiceAccount of pod: the field serviceAccountName or, if that
// is empty, the deprecated field serviceAccount. Empty: the pod names none.
func AccountName(pod *corev1.Pod) string {
	if pod.Spec.ServiceAccountName != "" {
		return pod.Spec.ServiceAccountName
	}
	return pod.Spec.DeprecatedServiceAccount
}

// Default sets pod.Spec.ServiceAccountName if it is empty, and returns true if it did. It does not
// change mirror pods. The API server keeps the field serviceAccount equal to it.
func Default(pod *corev1.Pod) bool {
	if isMirror(pod) || pod.Spec.ServiceAccountName != "" {
		return false
	}
	pod.Spec.ServiceAccountName = AccountName(pod)
	if pod.Spec.ServiceAccountName == "" {
		pod.Spec.ServiceAccountName = api.DefaultServiceAccount
	}
	return true
}

// Mutate adds to a pod that is being created what it gets from its ServiceAccount, and returns what
// it added; neither shares memory with account. It does not change mirror pods. tokenSecret is the
// name of the account's token Secret, used with [SecretTokens] only; if it is empty, a pod that
// needs one is refused with an error that asks the client to retry.
//
// An error is an [apierrors.APIStatus], and the pod is then unchanged.
func Mutate(pod *corev1.Pod, account *corev1.ServiceAccount, tokenSecret string, s Settings) (Changes, error) {
	if isMirror(pod) {
		return Changes{}, nil
	}
	var changes Changes
	if err := mountToken(pod, account, tokenSecret, s, &changes); err != nil {
		return Changes{}, err
	}
	addPullSecrets(pod, account, &changes)
	return changes, nil
}

// addPullSecrets adds the pull secrets of account to a pod without any.
func addPullSecrets(pod *corev1.Pod, account *corev1.ServiceAccount, changes *Changes) {
	if len(pod.Spec.ImagePullSecrets) > 0 || len(account.ImagePullSecrets) == 0 {
		return
	}
	secrets := make([]corev1.LocalObjectReference, len(account.ImagePullSecrets))
	for i, secret := range account.ImagePullSecrets {
		secrets[i].Name = secret.Name
	}
	pod.Spec.ImagePullSecrets, changes.PullSecrets = secrets, secrets
}
