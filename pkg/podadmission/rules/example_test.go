package rules_test

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/pkg/podadmission/rules"
)

// The rules for a pod that is being created.
func Example() {
	account := &corev1.ServiceAccount{
		ObjectMeta:       metav1.ObjectMeta{Namespace: "team", Name: "default"},
		ImagePullSecrets: []corev1.LocalObjectReference{{Name: "registry"}},
	}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: "web"},
		Spec: corev1.PodSpec{
			Containers: []corev1.Container{{Name: "main"}},
			Volumes:    []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "other"}}}},
		},
	}
	settings := rules.Settings{
		LimitSecretReferences: true,
		Suffix:                func() string { return "abcde" }, // nil: random letters
	}

	fmt.Println("defaulted:", rules.Default(pod), pod.Spec.ServiceAccountName)
	changes, err := rules.Mutate(pod, account, "", settings)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("pull secrets:", changes.PullSecrets[0].Name)
	fmt.Println("volume:", changes.Volume.Name)
	fmt.Println("mount:", pod.Spec.Containers[0].VolumeMounts[0].MountPath)
	fmt.Println("refused:", rules.Validate(pod, account, settings))
	// Output:
	// defaulted: true default
	// pull secrets: registry
	// volume: kube-api-access-abcde
	// mount: /var/run/secrets/kubernetes.io/serviceaccount
	// refused: pods "web" is forbidden: volume with secret.secretName="other" is not allowed because service account default does not reference that secret
}
