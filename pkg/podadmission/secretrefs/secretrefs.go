package secretrefs

import (
	"iter"
	"strconv"

	corev1 "k8s.io/api/core/v1"
)

// Kind is a kind of place that names a Secret.
type Kind uint8

// All kinds. Whatever is neither of a container nor an ImagePullSecret is of a
// volume.
const (
	ImagePullSecret Kind = iota
	Env
	EnvFrom
	SecretVolume
	ProjectedSecret
	AzureFile
	CephFS
	Cinder
	CSI
	FlexVolume
	ISCSI
	RBD
	ScaleIO
	StorageOS
)

// Field is the field that holds the name, as it is written in a pod, from the pull
// secret, environment variable, envFrom entry, volume or projected source on.
func (k Kind) Field() string {
	switch k {
	case ImagePullSecret:
		return "name"
	case Env:
		return "valueFrom.secretKeyRef.name"
	case EnvFrom:
		return "secretRef.name"
	case SecretVolume:
		return "secret.secretName"
	case ProjectedSecret:
		return "secret.name"
	case AzureFile:
		return "azureFile.secretName"
	case CephFS:
		return "cephfs.secretRef.name"
	case Cinder:
		return "cinder.secretRef.name"
	case CSI:
		return "csi.nodePublishSecretRef.name"
	case FlexVolume:
		return "flexVolume.secretRef.name"
	case ISCSI:
		return "iscsi.secretRef.name"
	case RBD:
		return "rbd.secretRef.name"
	case ScaleIO:
		return "scaleIO.secretRef.name"
	case StorageOS:
		return "storageos.secretRef.name"
	}
	return ""
}

// Reference is one place that names a Secret. The Secret is in the namespace of the
// pod.
type Reference struct {
	Kind Kind
	// Name is that of the Secret. It is empty where the pod leaves it empty.
	Name string
	// Container is the kind of container, NoContainer for the other places.
	Container ContainerKind
	// Holder is the name of the container or the volume.
	Holder string
	// Variable is the name of the environment variable, for Env alone.
	Variable string
	// Index is that of the container, volume or pull secret, and Inner that of the
	// variable, envFrom entry or projected source in it.
	Index, Inner int
}

// Path is where the name stands in a pod, such as
// "spec.volumes[2].csi.nodePublishSecretRef.name".
func (r Reference) Path() string {
	list, inner := "volumes", ""
	switch r.Kind {
	case ImagePullSecret:
		list = "imagePullSecrets"
	case Env:
		list, inner = r.Container.Field(), "env"
	case EnvFrom:
		list, inner = r.Container.Field(), "envFrom"
	case ProjectedSecret:
		inner = "projected.sources"
	default:
	}
	path := "spec." + list + "[" + strconv.Itoa(r.Index) + "]."
	if inner != "" {
		path += inner + "[" + strconv.Itoa(r.Inner) + "]."
	}
	return path + r.Kind.Field()
}

// All finds every place in spec that names a Secret: volumes, then init, regular
// and ephemeral containers (the variables of each before its envFrom), then pull
// secrets, each in the order of the pod.
func All(spec *corev1.PodSpec) iter.Seq[Reference] {
	return func(yield func(Reference) bool) {
		for i := range spec.Volumes {
			if !ofVolume(&spec.Volumes[i], i, yield) {
				return
			}
		}
		for place, container := range Containers(spec) {
			if !ofContainer(place, container, yield) {
				return
			}
		}
		for i, secret := range spec.ImagePullSecrets {
			if !yield(Reference{Kind: ImagePullSecret, Name: secret.Name, Index: i}) {
				return
			}
		}
	}
}

// Names tells whether spec names that Secret anywhere.
func Names(spec *corev1.PodSpec, secret string) bool {
	for reference := range All(spec) {
		if reference.Name == secret {
			return true
		}
	}
	return false
}

// ProjectsToken tells whether a volume asks for a token of the pod's
// ServiceAccount. Such a token is in no Secret.
func ProjectsToken(spec *corev1.PodSpec) bool {
	for i := range spec.Volumes {
		projected := spec.Volumes[i].Projected
		if projected == nil {
			continue
		}
		for j := range projected.Sources {
			if projected.Sources[j].ServiceAccountToken != nil {
				return true
			}
		}
	}
	return false
}

func ofContainer(place Place, container *corev1.Container, yield func(Reference) bool) bool {
	found := Reference{Container: place.Kind, Index: place.Index, Holder: container.Name}
	for i := range container.Env {
		from := container.Env[i].ValueFrom
		if from == nil || from.SecretKeyRef == nil {
			continue
		}
		variable := found
		variable.Kind, variable.Name = Env, from.SecretKeyRef.Name
		variable.Inner, variable.Variable = i, container.Env[i].Name
		if !yield(variable) {
			return false
		}
	}
	for i := range container.EnvFrom {
		if ref := container.EnvFrom[i].SecretRef; ref != nil {
			found.Kind, found.Name, found.Inner = EnvFrom, ref.Name, i
			if !yield(found) {
				return false
			}
		}
	}
	return true
}
