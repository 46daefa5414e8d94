package pullsecretcopy

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/api/v1alpha1"
	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/internal/apiresult"
	"github.com/sakeeper/sakeeper/pkg/internal/templatestatus"
	"github.com/sakeeper/sakeeper/pkg/kube"
)

// allStatuses is the only key of the queue of conditions.
type allStatuses struct{}

// Reasons of the condition CopiesReady.
const (
	conditionCopied    = "Copied"
	conditionCopying   = "Copying"
	conditionNotCopied = "NotCopied"
	conditionConflict  = "Conflict"
)

// syncStatuses compares the condition of every template with what the caches say, and writes those that
// differ.
func (c *Controller) syncStatuses(ctx context.Context, _ allStatuses) (time.Duration, error) {
	if wait := c.pace.Wait(); wait > 0 {
		return wait, nil
	}
	templates := c.templates()
	tallies := c.count(templates)
	return c.pace.Write(templates, func(t *cache.Template) func() (time.Duration, error) {
		before := meta.FindStatusCondition(t.Status.Conditions, v1alpha1.ConditionCopiesReady)
		after := tallies[t.Name].condition(t, before, c.cfg.Clock.Now())
		if equality.Semantic.DeepEqual(before, after) {
			return nil
		}
		return func() (time.Duration, error) { return c.writeCondition(ctx, t, before, after) }
	})
}

func (c *Controller) writeCondition(ctx context.Context, t *cache.Template, before, after *metav1.Condition) (time.Duration, error) {
	patchType, patch, options, err := conditionPatch(t, after)
	if err != nil {
		return 0, err
	}
	_, err = c.cfg.TemplateClient.Patch(ctx, t.Name, patchType, patch, options, "status")
	reference := &corev1.ObjectReference{Kind: "ServiceAccountTemplate", APIVersion: v1alpha1.GroupVersion.String(), Name: t.Name, UID: t.UID}
	if err == nil {
		c.recordCondition(reference, before, after)
	}
	return apiresult.Write{
		Doing: "patch the status of service account template " + t.Name, Recorder: c.cfg.Recorder, Object: reference, Reason: api.ReasonFailedCopyPullSecret,
	}.Change(ctx, err)
}

// conditionPatch applies our condition alone: others are not ours. It cannot remove the last field of a status,
// which takes a JSON merge patch of all conditions.
func conditionPatch(t *cache.Template, condition *metav1.Condition) (types.PatchType, []byte, metav1.PatchOptions, error) {
	if condition == nil {
		others := slices.Clone(t.Status.Conditions)
		meta.RemoveStatusCondition(&others, v1alpha1.ConditionCopiesReady)
		patch, err := kube.MergePatch(t, map[string]any{"status": map[string]any{"conditions": others}})
		return types.MergePatchType, patch, metav1.PatchOptions{FieldManager: api.PullSecretFieldManager}, err
	}
	patch, err := json.Marshal(map[string]any{
		"apiVersion": v1alpha1.GroupVersion.String(), "kind": "ServiceAccountTemplate",
		"metadata": map[string]any{"name": t.Name, "uid": t.UID}, "status": map[string]any{"conditions": []metav1.Condition{*condition}},
	})
	return types.ApplyPatchType, patch, metav1.PatchOptions{FieldManager: api.PullSecretFieldManager, Force: new(true)}, err
}

// recordCondition records an event for what is wrong now and was not before.
func (c *Controller) recordCondition(reference *corev1.ObjectReference, before, after *metav1.Condition) {
	switch {
	case after == nil, before != nil && before.Reason == after.Reason && before.Message == after.Message:
	case after.Reason == conditionConflict:
		c.cfg.Recorder.Event(reference, corev1.EventTypeWarning, api.ReasonTemplateConflict, after.Message)
	case after.Reason == conditionNotCopied:
		c.cfg.Recorder.Event(reference, corev1.EventTypeWarning, api.ReasonPullSecretNotCopied, after.Message)
	}
}

// tally is what the condition of a template tells.
type tally struct {
	copies, copying, problems int
	// wrong has problems and conflicts.
	wrong templatestatus.Names
}

// count goes over all namespaces once.
func (c *Controller) count(templates []*cache.Template) map[string]*tally {
	tallies := map[string]*tally{}
	for _, t := range templates {
		tallies[t.Name] = &tally{}
	}
	for _, namespace := range listed(c.cfg.Namespaces) {
		if namespace.Status.Phase != corev1.NamespaceActive {
			continue
		}
		names := map[v1alpha1.ObjectName]bool{}
		for _, t := range templates {
			for _, secret := range t.Spec.ImagePullSecrets {
				if secret.CopyFrom != nil && t.SelectsNamespace(namespace) {
					names[secret.Name] = true
				}
			}
		}
		for name := range names {
			c.countCopy(tallies, c.gather(toolscache.NewObjectName(namespace.Name, string(name)), templates))
		}
	}
	return tallies
}

func (c *Controller) countCopy(tallies map[string]*tally, s state) {
	p := decide(s)
	problem := p.problem
	if p.action != none {
		problem = c.problem(s.key)
	}
	for _, claim := range s.claims {
		t := tallies[claim.template]
		switch {
		case !s.isServed, claim.source != s.claims[0].source, claim.source == s.key:
		case problem != "":
			t.problems++
			t.wrong.Add(s.key.String() + ": " + problem)
		case p.action != none:
			t.copying++
		default:
			t.copies++
		}
	}
	for _, loser := range p.conflicts {
		tallies[loser.template].wrong.Add(fmt.Sprintf("%s is copied from %s, as the template %s of the same priority says", s.key, s.claims[0].source, s.claims[0].template))
	}
}

// condition returns the condition of a template, or nil if it names no source. The time is that of before if
// the status is the same.
func (t *tally) condition(template *cache.Template, before *metav1.Condition, now time.Time) *metav1.Condition {
	if !slices.ContainsFunc(template.Spec.ImagePullSecrets, func(secret v1alpha1.PullSecret) bool { return isFrom(secret, nil) }) {
		return nil
	}
	condition := &metav1.Condition{
		Type: v1alpha1.ConditionCopiesReady, Status: metav1.ConditionFalse, ObservedGeneration: template.Generation,
		LastTransitionTime: metav1.NewTime(now.Truncate(time.Second)), // a resolution of seconds is what the API server keeps
	}
	switch {
	case template.Invalid != nil:
		condition.Reason, condition.Message = conditionNotCopied, template.Invalid.Error()
	case t.problems > 0:
		condition.Reason, condition.Message = conditionNotCopied, t.wrong.String()
	case t.wrong.Count() > 0:
		condition.Reason, condition.Message = conditionConflict, t.wrong.String()
	case t.copying > 0:
		condition.Reason, condition.Message = conditionCopying, fmt.Sprintf("%d copies are still to be written", t.copying)
	default:
		condition.Status, condition.Reason, condition.Message = metav1.ConditionTrue, conditionCopied, fmt.Sprintf("%d copies", t.copies)
	}
	if before != nil && before.Status == condition.Status {
		condition.LastTransitionTime = before.LastTransitionTime
	}
	return condition
}
