package secretrefs

import (
	"iter"

	corev1 "k8s.io/api/core/v1"
)

// ContainerKind is one of the lists of containers in a PodSpec.
type ContainerKind uint8

// The kinds of containers.
const (
	NoContainer ContainerKind = iota // not in a container
	Init
	Regular
	Ephemeral
)

// Field returns the name of the list in a PodSpec; empty for NoContainer.
func (k ContainerKind) Field() string {
	switch k {
	case Init:
		return "initContainers"
	case Regular:
		return "containers"
	case Ephemeral:
		return "ephemeralContainers"
	default:
		return ""
	}
}

// Place is the list and the index of a container in a pod.
type Place struct {
	Kind  ContainerKind
	Index int
}

// Containers visits all containers of spec: init, regular, ephemeral. The pointers are into spec, so
// a caller may change a container.
func Containers(spec *corev1.PodSpec) iter.Seq2[Place, *corev1.Container] {
	return func(yield func(Place, *corev1.Container) bool) {
		for i := range spec.InitContainers {
			if !yield(Place{Init, i}, &spec.InitContainers[i]) {
				return
			}
		}
		for i := range spec.Containers {
			if !yield(Place{Regular, i}, &spec.Containers[i]) {
				return
			}
		}
		for i := range spec.EphemeralContainers {
			if !yield(Place{Ephemeral, i}, (*corev1.Container)(&spec.EphemeralContainers[i].EphemeralContainerCommon)) {
				return
			}
		}
	}
}
