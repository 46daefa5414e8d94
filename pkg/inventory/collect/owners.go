package collect

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sakeeper/sakeeper/pkg/inventory"
	"github.com/sakeeper/sakeeper/pkg/inventory/reach"
)

// readOwners reads who owns the ReplicaSets and Jobs that own pods which refer to a Secret. Only
// their metadata is read.
func (c *collector) readOwners(ctx context.Context) {
	c.result.Owners = map[inventory.Workload]inventory.Workload{}
	for kind, resource := range map[string]schema.GroupVersionResource{
		"ReplicaSet": {Group: "apps", Version: "v1", Resource: "replicasets"},
		"Job":        {Group: "batch", Version: "v1", Resource: "jobs"},
	} {
		if !c.ownsPods(kind) {
			continue
		}
		err := pages(ctx, metav1.ListOptions{Limit: chunk}, func(ctx context.Context, opts metav1.ListOptions) (string, int64, error) {
			list, err := c.Metadata.Resource(resource).Namespace(c.Namespace).List(ctx, opts)
			if err != nil {
				return "", 0, err
			}
			for i := range list.Items {
				item := &list.Items[i]
				if owner := metav1.GetControllerOf(item); owner != nil {
					c.result.Owners[inventory.Workload{Kind: kind, Namespace: item.Namespace, Name: item.Name}] =
						inventory.Workload{Kind: owner.Kind, Namespace: item.Namespace, Name: owner.Name}
				}
			}
			c.count(len(list.Items))
			return list.Continue, chunk, nil
		})
		if err != nil {
			c.miss("list "+resource.Resource, c.Namespace, kind+"s are named, not what owns them", err, func() {})
		}
	}
}

func (c *collector) ownsPods(kind string) bool {
	for _, pod := range c.result.Pods {
		if pod.Owner.Kind == kind && len(pod.Secrets) > 0 {
			return true
		}
	}
	return false
}

// readTokenHolders reads which accounts of the cluster have token Secrets, for the reach of those that
// may read Secrets. Only metadata is read.
func (c *collector) readTokenHolders(ctx context.Context) {
	opts := metav1.ListOptions{FieldSelector: tokenSecrets, Limit: chunk}
	secrets := c.Metadata.Resource(schema.GroupVersionResource{Version: "v1", Resource: "secrets"})
	err := pages(ctx, opts, func(ctx context.Context, opts metav1.ListOptions) (string, int64, error) {
		list, err := secrets.List(ctx, opts)
		if err != nil {
			return "", 0, err
		}
		for i := range list.Items {
			account := reach.Account{Namespace: list.Items[i].Namespace, Name: list.Items[i].Annotations[corev1.ServiceAccountNameKey]}
			c.result.RBAC.WithTokens = append(c.result.RBAC.WithTokens, account)
		}
		c.count(len(list.Items))
		return list.Continue, chunk, nil
	})
	if err != nil {
		c.miss(listSecrets, "", "any account may have a token that others can read", err, func() { c.result.RBAC.TokensUnknown = true })
	}
}
