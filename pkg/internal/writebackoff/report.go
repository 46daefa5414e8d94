package writebackoff

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"

	"github.com/sakeeper/sakeeper/pkg/api"
)

// Report tells people when an object, or its whole kind, begins to be left alone.
func Report(ctx context.Context, recorder record.EventRecorder, object *corev1.ObjectReference, v Verdict) {
	what := "This object is"
	switch {
	case v.Kind && v.Group != "":
		what = "All objects of this kind in " + v.Group + " are"
	case v.Kind:
		what = "All objects of this kind are"
	case !v.Object:
		return
	}
	klog.FromContext(ctx).Info("Somebody keeps undoing what is written here, left alone for a while",
		"kind", object.Kind, "object", klog.KRef(object.Namespace, object.Name), "wholeKind", v.Kind, "for", truce)
	recorder.Eventf(object, corev1.EventTypeWarning, api.ReasonLeftAlone,
		"Somebody keeps undoing what is written here, such as another controller with another CA or key. %s left alone for %v. Run one of the two, or give both the same files", what, truce)
}
