package e2e

import corev1 "k8s.io/api/core/v1"

func secretEnv(secret string) []corev1.EnvVar {
	return []corev1.EnvVar{{Name: "VAR", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{
		LocalObjectReference: corev1.LocalObjectReference{Name: secret}, Key: "k",
	}}}}
}

func secretEnvFrom(secret string) []corev1.EnvFromSource {
	return []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: secret}}}}
}

func secretVolume(secret string) corev1.Volume {
	return corev1.Volume{Name: "v-" + secret, VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: secret}}}
}

func tokenMount(volume string) []corev1.VolumeMount {
	return []corev1.VolumeMount{{Name: volume, MountPath: "/var/run/secrets/kubernetes.io/serviceaccount"}}
}

// likePods are changes of a pod that both allow. The account limited lists the Secrets listed
// and registry.
func likePods() map[string]func(*corev1.Pod) {
	return map[string]func(*corev1.Pod){
		"an ordinary one":        func(*corev1.Pod) {},
		"of an account":          func(p *corev1.Pod) { p.Spec.ServiceAccountName = "robot" },
		"by the deprecated name": func(p *corev1.Pod) { p.Spec.DeprecatedServiceAccount = "robot" },
		"that wants no token":    func(p *corev1.Pod) { p.Spec.AutomountServiceAccountToken = new(bool) },
		"of an account that wants none": func(p *corev1.Pod) {
			p.Spec.ServiceAccountName = "tokenless"
		},
		"that wants one where its account wants none": func(p *corev1.Pod) {
			p.Spec.ServiceAccountName, p.Spec.AutomountServiceAccountToken = "tokenless", new(true)
		},
		"that gets pull secrets": func(p *corev1.Pod) { p.Spec.ServiceAccountName = "puller" },
		"that has pull secrets": func(p *corev1.Pod) {
			p.Spec.ServiceAccountName, p.Spec.ImagePullSecrets = "puller", pullSecrets("mine")
		},
		"with a mount of its own in one container": func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "mine"}}
			p.Spec.Containers[0].VolumeMounts = tokenMount("mine")
		},
		"with mounts of its own in all containers": func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "mine"}}
			p.Spec.Containers[0].VolumeMounts, p.Spec.InitContainers[0].VolumeMounts = tokenMount("mine"), tokenMount("mine")
		},
		"with a volume of that prefix": func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "other"}, {Name: "kube-api-access-mine"}}
		},
		"with volumes and mounts": func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "data"}}
			p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "second", Image: "i"})
		},
		"a mirror pod": func(p *corev1.Pod) {
			p.Annotations, p.Spec.NodeName = map[string]string{corev1.MirrorPodAnnotationKey: "x"}, "node"
		},
		"that names what is listed": func(p *corev1.Pod) {
			p.Spec.ServiceAccountName, p.Spec.ImagePullSecrets = "limited", pullSecrets("registry")
			p.Spec.Volumes = []corev1.Volume{secretVolume("listed")}
			p.Spec.Containers[0].Env, p.Spec.InitContainers[0].EnvFrom = secretEnv("listed"), secretEnvFrom("listed")
		},
		"of an account whose annotation is no bool": func(p *corev1.Pod) {
			p.Spec.ServiceAccountName, p.Spec.Volumes = "unlimited", []corev1.Volume{secretVolume("unlisted")}
		},
	}
}

// unlikelyPods are changes of a pod of the account limited that both refuse.
func unlikelyPods() map[string]func(*corev1.Pod) {
	mirror := func(p *corev1.Pod) {
		p.Spec.ServiceAccountName, p.Annotations = "", map[string]string{corev1.MirrorPodAnnotationKey: "x"}
	}
	return map[string]func(*corev1.Pod){
		"a Secret volume":               func(p *corev1.Pod) { p.Spec.Volumes = []corev1.Volume{secretVolume("unlisted")} },
		"env":                           func(p *corev1.Pod) { p.Spec.Containers[0].Env = secretEnv("unlisted") },
		"envFrom":                       func(p *corev1.Pod) { p.Spec.Containers[0].EnvFrom = secretEnvFrom("unlisted") },
		"env of an init container":      func(p *corev1.Pod) { p.Spec.InitContainers[0].Env = secretEnv("unlisted") },
		"envFrom of an init container":  func(p *corev1.Pod) { p.Spec.InitContainers[0].EnvFrom = secretEnvFrom("unlisted") },
		"a pull secret":                 func(p *corev1.Pod) { p.Spec.ImagePullSecrets = pullSecrets("registry", "unlisted") },
		"a pull secret that is mounted": func(p *corev1.Pod) { p.Spec.ImagePullSecrets = pullSecrets("listed") },
		"several, of which one is told": func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{secretVolume("listed"), secretVolume("second")}
			p.Spec.Containers[0].Env, p.Spec.InitContainers[0].Env = secretEnv("third"), secretEnv("fourth")
		},
		"no name": func(p *corev1.Pod) {
			p.Name, p.GenerateName, p.Spec.ImagePullSecrets = "", "made-", pullSecrets("unlisted")
		},
		"an account that is not there":  func(p *corev1.Pod) { p.Spec.ServiceAccountName = "missing" },
		"a mirror pod with an account":  func(p *corev1.Pod) { mirror(p); p.Spec.ServiceAccountName = "robot" },
		"a mirror pod with a Secret":    func(p *corev1.Pod) { mirror(p); p.Spec.Volumes = []corev1.Volume{secretVolume("any")} },
		"a mirror pod with pull secret": func(p *corev1.Pod) { mirror(p); p.Spec.ImagePullSecrets = pullSecrets("any") },
		"a mirror pod with a token": func(p *corev1.Pod) {
			mirror(p)
			p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
				Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}}},
			}}}}
		},
	}
}
