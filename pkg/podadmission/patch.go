package podadmission

import (
	"encoding/json"
	"strconv"

	corev1 "k8s.io/api/core/v1"

	"github.com/sakeeper/sakeeper/pkg/podadmission/rules"
	"github.com/sakeeper/sakeeper/pkg/podadmission/secretrefs"
)

// patchOperation is an operation of a JSON patch (RFC 6902).
type patchOperation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

// patch returns the patch for what was added to pod, which has the additions already; nil if
// nothing was. It only adds, because the pod may have fields that corev1.Pod does not. named says
// that the name of the ServiceAccount was added.
func patch(pod *corev1.Pod, named bool, changes rules.Changes) ([]byte, error) {
	var operations []patchOperation
	add := func(path string, value any) {
		operations = append(operations, patchOperation{Op: "add", Path: path, Value: value})
	}
	if named {
		add("/spec/serviceAccountName", pod.Spec.ServiceAccountName)
	}
	if changes.PullSecrets != nil {
		add("/spec/imagePullSecrets", changes.PullSecrets)
	}
	if changes.Volume != nil {
		if len(pod.Spec.Volumes) == 1 { // the list was missing or empty
			add("/spec/volumes", pod.Spec.Volumes)
		} else {
			add("/spec/volumes/-", changes.Volume)
		}
	}
	for _, place := range changes.Mounted {
		path := "/spec/" + place.Kind.Field() + "/" + strconv.Itoa(place.Index) + "/volumeMounts"
		if mounts := mountsAt(pod, place); len(mounts) == 1 {
			add(path, mounts)
		} else {
			add(path+"/-", changes.Mount)
		}
	}
	if operations == nil {
		return nil, nil
	}
	return json.Marshal(operations)
}

func mountsAt(pod *corev1.Pod, place secretrefs.Place) []corev1.VolumeMount {
	if place.Kind == secretrefs.Init {
		return pod.Spec.InitContainers[place.Index].VolumeMounts
	}
	return pod.Spec.Containers[place.Index].VolumeMounts
}
