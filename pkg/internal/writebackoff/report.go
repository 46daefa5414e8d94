package writebackoff

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"

	"github.com/sakeeper/sakeeper/pkg/api"
)

// Report logs and records a Warning event on object when writes to it begin to be delayed.
func Report(ctx context.Context, recorder record.EventRecorder, object *corev1.ObjectReference, d Decision) {
	if !d.Warn {
		return
	}
	klog.FromContext(ctx).Info("Another client keeps changing the object back, writing to it ever more slowly",
		"kind", object.Kind, "object", klog.KRef(object.Namespace, object.Name))
	recorder.Eventf(object, corev1.EventTypeWarning, api.ReasonLeftAlone,
		"Another client keeps changing this back, such as a second controller with another CA or key. It is written again ever more slowly, at least every %v. Run one of the two, or give both the same files", maxDelay)
}
