package podadmission

import (
	"fmt"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utiljson "k8s.io/apimachinery/pkg/util/json"
)

// podOperation is what a request does to a pod.
type podOperation int

const (
	otherOperation podOperation = iota // an update or deletion, for which there is no rule
	createPod
	updateEphemeralContainers
)

// operationOf returns an error for a request that the webhook configurations never send: to allow it
// would look as if it had been checked.
func operationOf(request *admissionv1.AdmissionRequest) (podOperation, error) {
	if pods := (metav1.GroupVersionResource{Version: "v1", Resource: "pods"}); request.Resource != pods {
		return otherOperation, badRequest("this webhook is for pods of v1, not for %s", request.Resource)
	}
	if pod := (metav1.GroupVersionKind{Version: "v1", Kind: "Pod"}); request.Kind != pod {
		return otherOperation, badRequest("this webhook is for the kind Pod of v1, not for %s", request.Kind)
	}
	switch operation := request.Operation; {
	case request.SubResource == "" && operation == admissionv1.Create:
		return createPod, nil
	case request.SubResource == "" && (operation == admissionv1.Update || operation == admissionv1.Delete):
		return otherOperation, nil
	case request.SubResource == "ephemeralcontainers" && operation == admissionv1.Update:
		return updateEphemeralContainers, nil
	default:
		return otherOperation, badRequest("this webhook has no rule for the operation %q on pods and the subresource %q", operation, request.SubResource)
	}
}

// decode returns the pod of a request, with the namespace of the request.
func decode(request *admissionv1.AdmissionRequest) (*corev1.Pod, error) {
	pod := &corev1.Pod{}
	if len(request.Object.Raw) == 0 {
		return nil, badRequest("the request has no object")
	}
	// Names of fields are case-sensitive, as in the API server.
	if err := utiljson.Unmarshal(request.Object.Raw, pod); err != nil {
		return nil, badRequest("the object cannot be read as a pod: %v", err)
	}
	switch {
	case pod.APIVersion != "v1" || pod.Kind != "Pod":
		return nil, badRequest("the object is a %q of %q, not a Pod of v1", pod.Kind, pod.APIVersion)
	case request.Namespace == "":
		return nil, badRequest("the request has no namespace")
	case pod.Namespace == "":
		pod.Namespace = request.Namespace
	case pod.Namespace != request.Namespace:
		return nil, badRequest("the pod is in the namespace %q, the request in %q", pod.Namespace, request.Namespace)
	}
	return pod, requireSpec(pod, request.Object.Raw)
}

// requireSpec refuses a pod without the field spec, to which a patch could not be applied. The
// decoded pod shows that it has the field only if it has containers.
func requireSpec(pod *corev1.Pod, raw []byte) error {
	if len(pod.Spec.Containers) > 0 {
		return nil
	}
	var parts struct {
		Spec *struct{} `json:"spec"`
	}
	if err := utiljson.Unmarshal(raw, &parts); err != nil || parts.Spec == nil {
		return badRequest("the pod has no spec")
	}
	return nil
}

func badRequest(format string, args ...any) error {
	return apierrors.NewBadRequest(fmt.Sprintf(format, args...))
}
