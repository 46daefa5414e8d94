package tokencleaner

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/internal/writebackoff"
	"github.com/sakeeper/sakeeper/pkg/kube"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// mark makes the API server refuse the token.
func (c *Controller) mark(ctx context.Context, s state, d decision) error {
	why := fmt.Sprintf("no use of this token within %v is on record, and no pod names it", d.period)
	if c.cfg.DryRun {
		c.rehearse(ctx, s, stepMark, api.ReasonWouldMarkUnusedToken, "Would be marked as unused: "+why)
		return nil
	}
	const content = "marked"
	object := contested{namespace: s.secret.Namespace, name: s.secret.Name, uid: string(s.secret.UID)}
	truce := c.truces.Allow(object, content)
	writebackoff.Report(ctx, c.cfg.Recorder, objectReference(s.secret), truce)
	if truce.Wait > 0 {
		return nil // a later pass asks again
	}
	patch, err := kube.MergePatch(s.secret, map[string]any{"metadata": map[string]any{
		"labels": map[string]any{token.InvalidSinceLabel: s.now.Format(dateFormat)},
	}})
	if err != nil {
		return err
	}
	_, err = c.cfg.Client.Secrets(s.secret.Namespace).Patch(ctx, s.secret.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	if err == nil {
		c.truces.Record(object, content)
		c.cfg.Recorder.Eventf(objectReference(s.secret), corev1.EventTypeNormal, api.ReasonMarkedUnusedToken,
			"Marked as unused: %s. The API server refuses it from now on, and it is deleted after another %v without use. Remove the label %s to use it again",
			why, d.period, token.InvalidSinceLabel)
	}
	return c.answer(ctx, s, stepMark, err)
}

// remove deletes the Secret, after its account was told.
func (c *Controller) remove(ctx context.Context, s state, d decision) error {
	why := fmt.Sprintf("marked as unused since %s, and not used within %v", s.invalidSince(), d.period)
	if c.cfg.DryRun {
		c.rehearse(ctx, s, stepDelete, api.ReasonWouldDeleteUnusedToken, "Would be deleted: "+why)
		return nil
	}
	takeBack := func() {}
	if cache.IsGeneratedName(s.secret.Account, s.secret.Name) {
		var err error
		if takeBack, err = c.note(ctx, s); err != nil {
			return c.answer(ctx, s, stepDelete, err)
		}
	}
	err := c.cfg.Client.Secrets(s.secret.Namespace).Delete(ctx, s.secret.Name, metav1.DeleteOptions{
		Preconditions: &metav1.Preconditions{UID: &s.secret.UID, ResourceVersion: &s.secret.ResourceVersion},
	})
	switch {
	case err == nil:
		c.cfg.Recorder.Event(objectReference(s.secret), corev1.EventTypeNormal, api.ReasonDeletedUnusedToken, "Deleted: "+why)
	case apierrors.IsConflict(err):
		takeBack()
	}
	return c.answer(ctx, s, stepDelete, err)
}

// note writes the date of today on the account of a Secret that is to be deleted.
// It comes before the deletion, which is what makes a generator of tokens look.
func (c *Controller) note(ctx context.Context, s state) (takeBack func(), err error) {
	date := s.now.Format(dateFormat)
	former, had := s.account.Annotations[api.CleanedUpAnnotation]
	if former == date || c.pass.noted[s.account.UID] == date {
		return func() {}, nil
	}
	written, err := c.patchNote(ctx, &s.account.ObjectMeta, date)
	if err != nil {
		return nil, err
	}
	c.pass.noted[s.account.UID] = date
	klog.FromContext(ctx).V(2).Info("Noted a clean-up on service account", "serviceAccount", klog.KObj(s.account), "date", date)
	return func() {
		var value any // nil: there was no annotation
		if had {
			value = former
		}
		delete(c.pass.noted, s.account.UID)
		if _, err := c.patchNote(ctx, &written.ObjectMeta, value); err != nil {
			klog.FromContext(ctx).Info("Left a note of a clean-up that did not happen on service account", "serviceAccount", klog.KObj(s.account), "reason", kube.Redact(err))
		}
	}, nil
}

func (c *Controller) patchNote(ctx context.Context, account *metav1.ObjectMeta, value any) (*corev1.ServiceAccount, error) {
	patch, err := kube.MergePatch(account, map[string]any{"metadata": map[string]any{
		"annotations": map[string]any{api.CleanedUpAnnotation: value},
	}})
	if err != nil {
		return nil, err
	}
	written, err := c.cfg.Client.ServiceAccounts(account.Namespace).Patch(ctx, account.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	if err != nil {
		return nil, fmt.Errorf("patch service account %s: %w", klog.KObj(account), err)
	}
	return written, nil
}

// rehearse says what would be done.
func (c *Controller) rehearse(ctx context.Context, s state, step, reason, text string) {
	c.metrics.took(step, resultDryRun)
	klog.FromContext(ctx).Info("Dry run: nothing was changed", "secret", klog.KObj(s.secret), "serviceAccount", klog.KRef(s.secret.Namespace, s.secret.Account), "step", step)
	c.cfg.Recorder.Event(objectReference(s.secret), corev1.EventTypeNormal, reason, text)
}

// answer reads what the API server made of a step.
func (c *Controller) answer(ctx context.Context, s state, step string, err error) error {
	logger := klog.FromContext(ctx).WithValues("secret", klog.KObj(s.secret), "serviceAccount", klog.KRef(s.secret.Namespace, s.secret.Account), "step", step)
	switch {
	case err == nil:
		c.metrics.took(step, resultDone)
		logger.V(2).Info("Cleaned up an unused token", "created", s.secret.CreationTimestamp.UTC().Format(dateFormat),
			"lastUsed", s.secret.Labels[token.LastUsedLabel], "invalidSince", s.invalidSince())
		return nil
	case apierrors.IsConflict(err), apierrors.IsNotFound(err):
		// It was used, or changed, or went: the next pass decides anew.
		c.metrics.took(step, resultChanged)
		logger.V(2).Info("Left a token alone, it or its service account changed in between")
		return nil
	}
	c.metrics.took(step, resultError)
	if (apierrors.IsInvalid(err) || apierrors.IsForbidden(err)) && !c.pass.refused.Has(s.secret.UID) {
		c.pass.refused.Insert(s.secret.UID)
		c.cfg.Recorder.Eventf(objectReference(s.secret), corev1.EventTypeWarning, api.ReasonFailedTokenCleanUp, "The API server refuses to %s this unused token: %v", step, kube.Redact(err))
	}
	return fmt.Errorf("%s secret %s: %w", step, klog.KObj(s.secret), kube.Redact(err))
}

func objectReference(secret *cache.TokenSecret) *corev1.ObjectReference {
	return &corev1.ObjectReference{Kind: "Secret", APIVersion: "v1", Namespace: secret.Namespace, Name: secret.Name, UID: secret.UID}
}
