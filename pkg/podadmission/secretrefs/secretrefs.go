package secretrefs

import (
	"iter"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Kind is a kind of field that names a Secret.
type Kind uint8

// The kinds of fields. Env and EnvFrom are in containers; all others but ImagePullSecret are in
// volumes.
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

// Field returns the path of the field in its pull secret, environment variable, envFrom entry, volume
// or projected source.
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

// Reference is one place that names a Secret, which is in the namespace of the pod.
type Reference struct {
	Kind Kind
	// Name is the name of the Secret. It is empty if it is empty in the pod.
	Name string
	// Container is the kind of the container; NoContainer if the place is not in one.
	Container ContainerKind
	// Holder is the name of the container or the volume.
	Holder string
	// Variable is the name of the environment variable; empty unless Kind is Env.
	Variable string
	// Index is the index of the container, volume or pull secret, and Inner the index of the
	// variable, envFrom entry or projected source in it.
	Index, Inner int
}

// The places of the indexes in the result of [Kind.Path].
const (
	IndexPlace = "{index}"
	InnerPlace = "{inner}"
)

// Kinds visits all kinds, in the order in which [All] finds them in one volume.
func Kinds() iter.Seq[Kind] {
	return func(yield func(Kind) bool) {
		for kind := ImagePullSecret; kind <= StorageOS; kind++ {
			if kind != ProjectedSecret && !yield(kind) {
				return
			}
		}
		yield(ProjectedSecret)
	}
}

// List returns the list that has the field: that of the volumes or pull secrets in a PodSpec, or that
// of the variables or envFrom entries in a container. inner is the path of the list in it that has the
// field; empty if there is none.
func (k Kind) List() (list, inner string) {
	switch k {
	case ImagePullSecret:
		return "imagePullSecrets", ""
	case Env:
		return "env", ""
	case EnvFrom:
		return "envFrom", ""
	case ProjectedSecret:
		return "volumes", "projected.sources"
	default:
		return "volumes", ""
	}
}

// Path returns the path of the field in a pod, with [IndexPlace] and [InnerPlace] for the indexes.
// container is the kind of the container for Env and EnvFrom.
func (k Kind) Path(container ContainerKind) string {
	list, inner := k.List()
	if k == Env || k == EnvFrom {
		list, inner = container.Field(), list
	}
	path := "spec." + list + "[" + IndexPlace + "]."
	if inner != "" {
		path += inner + "[" + InnerPlace + "]."
	}
	return path + k.Field()
}

// Path returns the path of the field in the pod, such as
// "spec.volumes[2].csi.nodePublishSecretRef.name".
func (r Reference) Path() string {
	return strings.NewReplacer(IndexPlace, strconv.Itoa(r.Index), InnerPlace, strconv.Itoa(r.Inner)).Replace(r.Kind.Path(r.Container))
}

// All visits every place in spec that names a Secret: volumes, then init, regular and ephemeral
// containers (the variables of each before its envFrom), then pull secrets, each in the order of
// the pod.
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

// ProjectsToken returns true if a volume of spec projects a token of the pod's ServiceAccount. Such a
// token is not in a Secret.
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
