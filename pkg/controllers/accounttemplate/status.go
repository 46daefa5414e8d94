package accounttemplate

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
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

// allStatuses is the only key of the queue of statuses.
type allStatuses struct{}

// Reasons of conditions.
const (
	conditionApplied         = "Applied"
	conditionApplying        = "Applying"
	conditionInvalidSelector = "InvalidSelector"
	conditionNotApplied      = "NotApplied"
	conditionNoConflict      = "NoConflict"
	conditionConflict        = "Conflict"
)

// syncStatuses compares the status of every template with what the caches say, and writes those that
// differ.
func (c *Controller) syncStatuses(ctx context.Context, _ allStatuses) (time.Duration, error) {
	if wait := c.pace.Wait(); wait > 0 {
		return wait, nil
	}
	templates := c.cfg.Templates.sorted()
	tallies := c.count(templates)
	return c.pace.Write(templates, func(t *cache.Template) func() (time.Duration, error) {
		status := tallies[t.Name].status(t, c.cfg.Clock.Now())
		if equality.Semantic.DeepEqual(status, t.Status) {
			return nil
		}
		return func() (time.Duration, error) { return c.writeStatus(ctx, t, status) }
	})
}

func (c *Controller) writeStatus(ctx context.Context, t *cache.Template, status v1alpha1.ServiceAccountTemplateStatus) (time.Duration, error) {
	encoded, err := json.Marshal(status)
	if err != nil {
		return 0, err
	}
	patch, err := kube.MergePatch(t, map[string]any{"status": json.RawMessage(encoded)})
	if err != nil {
		return 0, err
	}
	_, err = c.cfg.Templates.client.Patch(ctx, t.Name, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	reference := &corev1.ObjectReference{Kind: "ServiceAccountTemplate", APIVersion: v1alpha1.GroupVersion.String(), Name: t.Name, UID: t.UID}
	if err == nil {
		c.recordConditions(reference, t.Status.Conditions, status.Conditions)
	}
	return apiresult.Write{
		Doing: "patch the status of service account template " + t.Name, Recorder: c.cfg.Recorder, Object: reference, Reason: api.ReasonFailedApplyTemplate,
	}.Change(ctx, err)
}

// recordConditions records an event for what is wrong now and was not before.
func (c *Controller) recordConditions(reference *corev1.ObjectReference, before, after []metav1.Condition) {
	changed := func(kind string, bad metav1.ConditionStatus, reasons ...string) *metav1.Condition {
		is, was := meta.FindStatusCondition(after, kind), meta.FindStatusCondition(before, kind)
		if is == nil || is.Status != bad || !slices.Contains(reasons, is.Reason) || (was != nil && was.Status == bad && was.Message == is.Message) {
			return nil
		}
		return is
	}
	if condition := changed(v1alpha1.ConditionConflict, metav1.ConditionTrue, conditionConflict); condition != nil {
		c.cfg.Recorder.Event(reference, corev1.EventTypeWarning, api.ReasonTemplateConflict, condition.Message)
	}
	if condition := changed(v1alpha1.ConditionReady, metav1.ConditionFalse, conditionInvalidSelector, conditionNotApplied); condition != nil {
		c.cfg.Recorder.Event(reference, corev1.EventTypeWarning, api.ReasonTemplateNotApplied, condition.Message)
	}
}

// tally is what the status of a template tells. A nil tally is that of one that selects nothing.
type tally struct {
	namespaces, accounts, applying int32
	problems, conflicts            templatestatus.Names
}

// count goes over all namespaces and ServiceAccounts once.
func (c *Controller) count(templates []*cache.Template) map[string]*tally {
	tallies := map[string]*tally{}
	for _, t := range templates {
		tallies[t.Name] = &tally{}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, obj := range c.cfg.Namespaces.GetStore().List() {
		namespace, ok := obj.(*corev1.Namespace)
		if !ok || namespace.Status.Phase != corev1.NamespaceActive {
			continue
		}
		missing := map[string]bool{}
		for _, t := range templates {
			if !t.SelectsNamespace(namespace) {
				continue
			}
			tallies[t.Name].namespaces++
			for _, name := range t.Names() {
				missing[name] = missing[name] || t.Spec.Create
			}
		}
		for _, account := range c.accountsIn(namespace.Name) {
			delete(missing, account.Name)
			c.countAccount(tallies, state{namespace: namespace, name: account.Name, account: account, templates: templates})
		}
		for name, wanted := range missing {
			if wanted {
				c.countAccount(tallies, state{namespace: namespace, name: name, templates: templates})
			}
		}
	}
	return tallies
}

func (c *Controller) countAccount(tallies map[string]*tally, s state) {
	p := decide(s)
	key := toolscache.NewObjectName(s.namespace.Name, s.name)
	for _, t := range p.selected {
		tally := tallies[t.Name]
		if s.account != nil {
			tally.accounts++
		}
		if p.action == none {
			continue
		}
		if problem := c.problems[key]; problem != "" {
			tally.problems.Add(key.String() + ": " + problem)
		} else {
			tally.applying++
		}
	}
	conflicts := map[string][]string{}
	for _, conflict := range p.conflicts {
		for _, name := range conflict.templates {
			conflicts[name] = append(conflicts[name], fmt.Sprintf("%s is set by the field manager %q", conflict.field, conflict.manager))
		}
	}
	for _, contradiction := range p.contradictions {
		conflicts[contradiction.loser] = append(conflicts[contradiction.loser], fmt.Sprintf("%s is set by the template %s of the same priority", contradiction.field, contradiction.winner))
	}
	for name, texts := range conflicts {
		tallies[name].conflicts.Add(key.String() + ": " + strings.Join(texts, ", "))
	}
}

// status returns the status of a template, with the times of conditions that have not changed.
func (t *tally) status(template *cache.Template, now time.Time) v1alpha1.ServiceAccountTemplateStatus {
	status := v1alpha1.ServiceAccountTemplateStatus{
		ObservedGeneration: template.Generation, Namespaces: new(t.namespaces), ServiceAccounts: new(t.accounts),
		Conditions: slices.Clone(template.Status.Conditions),
	}
	ready := metav1.Condition{Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse}
	switch {
	case template.Invalid != nil:
		ready.Reason, ready.Message = conditionInvalidSelector, template.Invalid.Error()
	case t.problems.Count() > 0:
		ready.Reason, ready.Message = conditionNotApplied, t.problems.String()
	case t.applying > 0:
		ready.Reason, ready.Message = conditionApplying, fmt.Sprintf("%d ServiceAccounts are still to be written", t.applying)
	default:
		ready.Status, ready.Reason = metav1.ConditionTrue, conditionApplied
	}
	conflict := metav1.Condition{Type: v1alpha1.ConditionConflict, Status: metav1.ConditionFalse, Reason: conditionNoConflict}
	if t.conflicts.Count() > 0 {
		conflict.Status, conflict.Reason, conflict.Message = metav1.ConditionTrue, conditionConflict, t.conflicts.String()
	}
	for _, condition := range []metav1.Condition{ready, conflict} {
		condition.ObservedGeneration = template.Generation
		// A resolution of seconds is what the API server keeps.
		condition.LastTransitionTime = metav1.NewTime(now.Truncate(time.Second))
		meta.SetStatusCondition(&status.Conditions, condition)
	}
	return status
}
