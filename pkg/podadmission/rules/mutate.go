package rules

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/podadmission/secretrefs"
)

// Changes is what [Mutate] did to a pod. Everything was added; nothing that the pod
// had was changed. The zero value is no change.
type Changes struct {
	// PullSecrets are all that the pod has now.
	PullSecrets []corev1.LocalObjectReference
	// Volume is the last one of the pod.
	Volume *corev1.Volume
	// Mounted are the containers whose last mount is Mount.
	Mounted []secretrefs.Place
	Mount   corev1.VolumeMount
}

// IsMirror tells whether pod stands for one that kubelet runs from a file.
func IsMirror(pod *corev1.Pod) bool {
	_, ok := pod.Annotations[corev1.MirrorPodAnnotationKey]
	return ok
}

// NeedsAccount tells whether pod's ServiceAccount must be looked up: there is a name,
// and the pod is no mirror pod. What needs none may be given to the rules with a nil
// account.
func NeedsAccount(pod *corev1.Pod) bool { return !IsMirror(pod) && AccountName(pod) != "" }

// AccountName is the ServiceAccount of pod: serviceAccountName or, without that,
// its old name serviceAccount. Empty: none.
func AccountName(pod *corev1.Pod) string {
	if pod.Spec.ServiceAccountName != "" {
		return pod.Spec.ServiceAccountName
	}
	return pod.Spec.DeprecatedServiceAccount
}

// Default sets pod.Spec.ServiceAccountName where it is empty, and tells whether it
// did. The API server then keeps the field serviceAccount equal to it.
func Default(pod *corev1.Pod) bool {
	if IsMirror(pod) || pod.Spec.ServiceAccountName != "" {
		return false
	}
	pod.Spec.ServiceAccountName = AccountName(pod)
	if pod.Spec.ServiceAccountName == "" {
		pod.Spec.ServiceAccountName = api.DefaultServiceAccount
	}
	return true
}

// Mutate adds what a pod that is being created gets from its ServiceAccount, and
// says what it added; neither shares memory with account. It does not touch mirror
// pods, whose account may be nil. tokenSecret is the name of the account's token
// Secret, for [SecretTokens] alone; empty: there is none, and a pod that needs one
// is refused with an error that asks to try again.
//
// An error is an [apierrors.APIStatus], and the pod is then unchanged.
func Mutate(pod *corev1.Pod, account *corev1.ServiceAccount, tokenSecret string, s Settings) (Changes, error) {
	if IsMirror(pod) {
		return Changes{}, nil
	}
	var done Changes
	if err := mountToken(pod, account, tokenSecret, s, &done); err != nil {
		return Changes{}, err
	}
	addPullSecrets(pod, account, &done)
	return done, nil
}

// addPullSecrets gives a pod without pull secrets those of its account.
func addPullSecrets(pod *corev1.Pod, account *corev1.ServiceAccount, done *Changes) {
	if len(pod.Spec.ImagePullSecrets) > 0 || len(account.ImagePullSecrets) == 0 {
		return
	}
	secrets := make([]corev1.LocalObjectReference, len(account.ImagePullSecrets))
	for i, secret := range account.ImagePullSecrets {
		secrets[i].Name = secret.Name
	}
	pod.Spec.ImagePullSecrets, done.PullSecrets = secrets, secrets
}
