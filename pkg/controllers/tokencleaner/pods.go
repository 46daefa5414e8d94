package tokencleaner

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"

	"github.com/sakeeper/sakeeper/pkg/podadmission/secretrefs"
)

// podsPerPage bounds what is in memory of a big namespace.
const podsPerPage = 500

// names are those of Secrets.
type names sets.Set[string]

func (n names) mounts(secret string) mounts {
	if sets.Set[string](n).Has(secret) {
		return mountsSome
	}
	return mountsNone
}

// namesInPods lists the pods of a namespace and what they name, in whatever phase
// they are.
func (c *Controller) namesInPods(ctx context.Context, namespace string) (names, error) {
	found := names{}
	options := metav1.ListOptions{Limit: podsPerPage}
	for {
		pods, err := c.cfg.Client.Pods(namespace).List(ctx, options)
		if err != nil {
			return nil, fmt.Errorf("list pods in %s: %w", namespace, err)
		}
		for i := range pods.Items {
			for reference := range secretrefs.All(&pods.Items[i].Spec) {
				sets.Set[string](found).Insert(reference.Name)
			}
		}
		if pods.Continue == "" {
			return found, nil
		}
		options.Continue = pods.Continue
	}
}
