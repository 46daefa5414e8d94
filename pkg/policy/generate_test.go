package policy_test

import (
	"fmt"
	"math/rand/v2"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/pkg/podadmission/rules"
	"github.com/sakeeper/sakeeper/pkg/podadmission/secretrefs"
)

// secretNames are the names of Secrets in accounts and pods.
var secretNames = []string{"a", "b", "c", "registry", "with.dots-and.digits-7"}

// accountNames are the names of ServiceAccounts. The last one does not exist.
var accountNames = []string{"default", "robot-0", "robot-1", "robot-2", "robot-3", "with.dots", "robot-5", "robot-6", "missing"}

// generator draws valid pods, and ServiceAccounts.
type generator struct{ *rand.Rand }

func pick[T any](g generator, from []T) T { return from[g.IntN(len(from))] }

func (g generator) chance(p float64) bool { return g.Float64() < p }

func (g generator) some() []string {
	var names []string
	for _, name := range secretNames {
		if g.chance(0.6) {
			names = append(names, name)
		}
	}
	return names
}

func (g generator) account(name string) *corev1.ServiceAccount {
	a := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if g.chance(0.8) {
		a.Annotations = map[string]string{rules.EnforceAnnotation: pick(g, append(rules.EnforceValues(), "false", "yes", ""))}
	}
	for _, secret := range g.some() {
		a.Secrets = append(a.Secrets, corev1.ObjectReference{Name: secret})
	}
	for _, secret := range g.some() {
		a.ImagePullSecrets = append(a.ImagePullSecrets, corev1.LocalObjectReference{Name: secret})
	}
	return a
}

// pod draws a pod that the API server accepts if no policy refuses it.
func (g generator) pod() *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "pod"}}
	account := pick(g, accountNames)
	switch g.IntN(10) {
	case 0: // without one
	case 1:
		p.Spec.DeprecatedServiceAccount = account
	default:
		p.Spec.ServiceAccountName = account
	}
	for i := range g.IntN(4) {
		p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: fmt.Sprint("volume-", i), VolumeSource: g.volume()})
	}
	for i := range g.IntN(2) {
		p.Spec.InitContainers = append(p.Spec.InitContainers, g.container(fmt.Sprint("init-", i)))
	}
	for i := range 1 + g.IntN(2) {
		p.Spec.Containers = append(p.Spec.Containers, g.container(fmt.Sprint("main-", i)))
	}
	for range g.IntN(3) {
		if g.chance(0.6) {
			p.Spec.ImagePullSecrets = append(p.Spec.ImagePullSecrets, corev1.LocalObjectReference{Name: pick(g, secretNames)})
		}
	}
	return p
}

func (g generator) volume() corev1.VolumeSource {
	if g.chance(0.3) {
		return pick(g, []corev1.VolumeSource{
			{EmptyDir: &corev1.EmptyDirVolumeSource{}},
			{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "a"}}},
			{CSI: &corev1.CSIVolumeSource{Driver: "driver.example.com"}},
			{ISCSI: &corev1.ISCSIVolumeSource{TargetPortal: "10.0.0.1", IQN: "iqn.2026-01.com.example:disk"}},
		})
	}
	var kinds []secretrefs.Kind // in an order that a seed repeats
	for kind := range secretrefs.Kinds() {
		if volumeOf[kind] != nil {
			kinds = append(kinds, kind)
		}
	}
	return volumeOf[pick(g, kinds)](pick(g, secretNames))
}

func (g generator) container(name string) corev1.Container {
	c := corev1.Container{Name: name, Image: "i"}
	for i := range g.IntN(3) {
		if g.chance(0.5) {
			c.Env = append(c.Env, variable(fmt.Sprint("VARIABLE_", i), pick(g, secretNames)))
		} else {
			c.Env = append(c.Env, corev1.EnvVar{Name: fmt.Sprint("PLAIN_", i), Value: "a"})
		}
	}
	if g.chance(0.2) {
		c.EnvFrom = append(c.EnvFrom, corev1.EnvFromSource{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "a"}}})
	}
	if g.chance(0.2) {
		c.EnvFrom = append(c.EnvFrom, envFrom(pick(g, secretNames)))
	}
	return c
}

func variable(name, secret string) corev1.EnvVar {
	return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{
		LocalObjectReference: corev1.LocalObjectReference{Name: secret}, Key: "key",
	}}}
}

func envFrom(secret string) corev1.EnvFromSource {
	return corev1.EnvFromSource{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: secret}}}
}

// volumeOf has a valid volume with a reference of each kind.
var volumeOf = map[secretrefs.Kind]func(secret string) corev1.VolumeSource{
	secretrefs.SecretVolume: func(secret string) corev1.VolumeSource {
		return corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: secret}}
	},
	secretrefs.ProjectedSecret: func(secret string) corev1.VolumeSource {
		return corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
			{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "a"}}},
			{Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: secret}}},
		}}}
	},
	secretrefs.AzureFile: func(secret string) corev1.VolumeSource {
		return corev1.VolumeSource{AzureFile: &corev1.AzureFileVolumeSource{SecretName: secret, ShareName: "share"}}
	},
	secretrefs.CephFS: func(secret string) corev1.VolumeSource {
		return corev1.VolumeSource{CephFS: &corev1.CephFSVolumeSource{Monitors: []string{"m"}, SecretRef: local(secret)}}
	},
	secretrefs.Cinder: func(secret string) corev1.VolumeSource {
		return corev1.VolumeSource{Cinder: &corev1.CinderVolumeSource{VolumeID: "v", SecretRef: local(secret)}}
	},
	secretrefs.CSI: func(secret string) corev1.VolumeSource {
		return corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{Driver: "driver.example.com", NodePublishSecretRef: local(secret)}}
	},
	secretrefs.FlexVolume: func(secret string) corev1.VolumeSource {
		return corev1.VolumeSource{FlexVolume: &corev1.FlexVolumeSource{Driver: "example.com/driver", SecretRef: local(secret)}}
	},
	secretrefs.ISCSI: func(secret string) corev1.VolumeSource {
		return corev1.VolumeSource{ISCSI: &corev1.ISCSIVolumeSource{TargetPortal: "10.0.0.1", IQN: "iqn.2026-01.com.example:disk", SecretRef: local(secret)}}
	},
	secretrefs.RBD: func(secret string) corev1.VolumeSource {
		return corev1.VolumeSource{RBD: &corev1.RBDVolumeSource{CephMonitors: []string{"m"}, RBDImage: "i", SecretRef: local(secret)}}
	},
	secretrefs.ScaleIO: func(secret string) corev1.VolumeSource {
		return corev1.VolumeSource{ScaleIO: &corev1.ScaleIOVolumeSource{Gateway: "g", System: "s", VolumeName: "v", SecretRef: local(secret)}}
	},
	secretrefs.StorageOS: func(secret string) corev1.VolumeSource {
		return corev1.VolumeSource{StorageOS: &corev1.StorageOSVolumeSource{VolumeName: "v", SecretRef: local(secret)}}
	},
}

func local(name string) *corev1.LocalObjectReference { return &corev1.LocalObjectReference{Name: name} }
