package accounttemplate

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/internal/apiresult"
	"github.com/sakeeper/sakeeper/pkg/internal/writebackoff"
	"github.com/sakeeper/sakeeper/pkg/kube"
)

// objectKey identifies a ServiceAccount for the write backoff: one that exists by its UID, a missing
// one by its namespace and name.
type objectKey struct {
	uid  types.UID
	name string
}

// apply makes one write, if the write backoff allows it.
func (c *Controller) apply(ctx context.Context, key toolscache.ObjectName, s state, p plan) (time.Duration, error) {
	object, reference := objectKey{uid: s.namespace.UID, name: key.Name}, kube.NamespaceReference(key.Namespace)
	write := apiresult.Write{Doing: "create service account " + key.String()}
	if s.account != nil {
		object, reference = objectKey{uid: s.account.UID}, kube.Reference("ServiceAccount", s.account)
		write.Doing = "apply templates to service account " + key.String()
	}
	write.Recorder, write.Object, write.Reason = c.cfg.Recorder, reference, api.ReasonFailedApplyTemplate
	content := contentOf(p.fields)
	allowed := c.backoff.Allow(object, content)
	writebackoff.Report(ctx, c.cfg.Recorder, reference, allowed)
	if allowed.Wait > 0 {
		c.note(key, "another client keeps changing it back")
		return allowed.Wait, nil
	}
	err := c.write(ctx, key, s.account, p)
	if err == nil {
		c.backoff.Record(object, content)
		klog.FromContext(ctx).V(2).Info("Applied templates to service account", "serviceAccount", klog.KRef(key.Namespace, key.Name), "reason", p.reason)
	}
	var requeueAfter time.Duration
	if s.account != nil {
		requeueAfter, err = write.Change(ctx, err)
	} else if err = write.Create(ctx, err); err == nil {
		c.queue.Completed(s.namespace.CreationTimestamp.Time)
	}
	if err != nil {
		c.note(key, err.Error())
	} else {
		c.note(key, "")
	}
	return requeueAfter, err
}

// write sends what is to be written; account is nil if it is to be created.
func (c *Controller) write(ctx context.Context, key toolscache.ObjectName, account *cache.Account, p plan) error {
	client := c.cfg.Client.ServiceAccounts(key.Namespace)
	if p.action == remove {
		patch, err := kube.MergePatch(account, removal(p.removed))
		if err != nil {
			return err
		}
		_, err = client.Patch(ctx, key.Name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: api.TemplateFieldManager})
		return err
	}
	applied := configuration(key, p.fields)
	if account != nil {
		applied.WithUID(account.UID)
		if p.force { // only what was seen is taken from another manager
			applied.WithResourceVersion(account.ResourceVersion)
		}
	}
	_, err := client.Apply(ctx, applied, metav1.ApplyOptions{FieldManager: api.TemplateFieldManager, Force: p.force})
	return err
}

// removal returns a JSON merge patch that removes fields.
func removal(fields []cache.Field) map[string]any {
	metadata := map[string]any{}
	patch := map[string]any{"metadata": metadata}
	for _, field := range fields {
		if field.Key == "" {
			patch[field.Name] = nil
			continue
		}
		keys, ok := metadata[field.Name].(map[string]any)
		if !ok {
			keys = map[string]any{}
			metadata[field.Name] = keys
		}
		keys[field.Key] = nil
	}
	return patch
}

// configuration returns a ServiceAccount with fields alone.
func configuration(key toolscache.ObjectName, fields map[cache.Field]string) *applycorev1.ServiceAccountApplyConfiguration {
	account := applycorev1.ServiceAccount(key.Name, key.Namespace)
	for field, value := range fields {
		switch field.Name {
		case cache.FieldLabel:
			account.WithLabels(map[string]string{field.Key: value})
		case cache.FieldAnnotation:
			account.WithAnnotations(map[string]string{field.Key: value})
		case cache.FieldAutomount:
			account.WithAutomountServiceAccountToken(value == "true")
		case cache.FieldPullSecrets:
			for name := range strings.SplitSeq(value, ",") {
				account.WithImagePullSecrets(applycorev1.LocalObjectReference().WithName(name))
			}
		}
	}
	return account
}

// contentOf is the write backoff's name of fields.
func contentOf(fields map[cache.Field]string) string {
	var lines []string
	for _, field := range slices.SortedFunc(maps.Keys(fields), func(a, b cache.Field) int { return strings.Compare(a.String(), b.String()) }) {
		lines = append(lines, fmt.Sprintf("%s=%q", field, fields[field]))
	}
	return strings.Join(lines, "\n")
}
