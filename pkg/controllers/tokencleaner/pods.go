package tokencleaner

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"

	"github.com/sakeeper/sakeeper/pkg/podadmission/secretrefs"
)

// podsPerPage limits the memory that the pods of a big namespace take.
const podsPerPage = 500

// secretNames is a set of names of Secrets.
type secretNames sets.Set[string]

func (n secretNames) mounts(secret string) mounts {
	if sets.Set[string](n).Has(secret) {
		return mountsSome
	}
	return mountsNone
}

// listNamesInPods lists the pods of a namespace and returns the Secrets that they refer to,
// whatever phase the pods are in.
func (c *Controller) listNamesInPods(ctx context.Context, namespace string) (secretNames, error) {
	found := secretNames{}
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
