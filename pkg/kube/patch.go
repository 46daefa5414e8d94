package kube

import (
	"encoding/json"
	"maps"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// MergePatch returns a JSON merge patch (RFC 7386) of change with the uid and resourceVersion
// of target, so that the API server refuses it with a conflict if the object was changed or
// replaced. Change may have a key "metadata", a map[string]any, and is not modified.
func MergePatch(target metav1.Object, change map[string]any) ([]byte, error) {
	metadata := map[string]any{}
	if own, ok := change["metadata"].(map[string]any); ok {
		maps.Copy(metadata, own)
	}
	metadata["uid"], metadata["resourceVersion"] = target.GetUID(), target.GetResourceVersion()
	patch := maps.Clone(change)
	if patch == nil {
		patch = map[string]any{}
	}
	patch["metadata"] = metadata
	return json.Marshal(patch)
}
