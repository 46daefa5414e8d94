package kube

import (
	"encoding/json"
	"maps"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// MergePatch makes a JSON merge patch (RFC 7386) of change, which the API server
// refuses, as a conflict, for another object than target and for another version of
// it. Change may have metadata of its own, as a map[string]any, and is not changed.
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
