package rules_test

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/pkg/testkit"
)

type podOption func(*corev1.Pod)

func newPod(options ...podOption) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: "web"},
		Spec:       corev1.PodSpec{ServiceAccountName: "robot", Containers: []corev1.Container{{Name: "main"}}},
	}
	for _, option := range options {
		option(pod)
	}
	return pod
}

func mirror(pod *corev1.Pod) {
	annotatedAsMirror(pod)
	unnamed(pod)
}

func annotatedAsMirror(pod *corev1.Pod) {
	pod.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: ""}
}

func unnamed(pod *corev1.Pod) { pod.Spec.ServiceAccountName = "" }

func volume(name string, source corev1.VolumeSource) podOption {
	return func(pod *corev1.Pod) {
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: name, VolumeSource: source})
	}
}

func secretVolume(secret string) podOption {
	return volume("data", corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: secret}})
}

func pullSecret(secret string) podOption {
	return func(pod *corev1.Pod) {
		pod.Spec.ImagePullSecrets = append(pod.Spec.ImagePullSecrets, corev1.LocalObjectReference{Name: secret})
	}
}

func initContainer(secret string) podOption {
	return func(pod *corev1.Pod) {
		pod.Spec.InitContainers = append(pod.Spec.InitContainers, withEnv("first", secret))
	}
}

func container(secret string) podOption {
	return func(pod *corev1.Pod) { pod.Spec.Containers = append(pod.Spec.Containers, withEnv("main", secret)) }
}

func initContainerFrom(secret string) podOption {
	return func(pod *corev1.Pod) {
		pod.Spec.InitContainers = append(pod.Spec.InitContainers, withEnvFrom("first", secret))
	}
}

func containerFrom(secret string) podOption {
	return func(pod *corev1.Pod) { pod.Spec.Containers = append(pod.Spec.Containers, withEnvFrom("main", secret)) }
}

func ephemeral(c corev1.Container) podOption {
	return func(pod *corev1.Pod) {
		pod.Spec.EphemeralContainers = append(pod.Spec.EphemeralContainers,
			corev1.EphemeralContainer{EphemeralContainerCommon: corev1.EphemeralContainerCommon(c)})
	}
}

func withEnv(name, secret string) corev1.Container {
	return corev1.Container{Name: name, Env: []corev1.EnvVar{{Name: "PLAIN"}, {Name: "KEY", ValueFrom: &corev1.EnvVarSource{
		SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: *ref(secret)},
	}}}}
}

func withEnvFrom(name, secret string) corev1.Container {
	return corev1.Container{Name: name, EnvFrom: []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: *ref(secret)}}}}
}

func ref(name string) *corev1.LocalObjectReference { return &corev1.LocalObjectReference{Name: name} }

// robot lists the Secret "listed" and the pull secret "registry".
func robot(opts ...testkit.Option) *corev1.ServiceAccount {
	account := testkit.ServiceAccount("team/robot", append(opts, testkit.WithReferences("listed"))...)
	account.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "registry"}}
	return account
}
