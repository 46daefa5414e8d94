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
	"github.com/sakeeper/sakeeper/pkg/kube"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// mark labels the Secret, after which the API server refuses its token.
func (c *Controller) mark(ctx context.Context, s state, d decision) error {
	why := fmt.Sprintf("no use of this token within %v is recorded, and no pod refers to it", d.period)
	if c.cfg.DryRun {
		c.recordDryRun(ctx, s, stepMark, api.ReasonWouldMarkUnusedToken, "Would be marked as unused: "+why)
		return nil
	}
	patch, err := kube.MergePatch(s.secret, map[string]any{"metadata": map[string]any{
		"labels": map[string]any{token.InvalidSinceLabel: s.now.Format(dateFormat)},
	}})
	if err != nil {
		return err
	}
	_, err = c.cfg.Client.Secrets(s.secret.Namespace).Patch(ctx, s.secret.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	if err == nil {
		c.cfg.Recorder.Eventf(kube.Reference("Secret", s.secret), corev1.EventTypeNormal, api.ReasonMarkedUnusedToken,
			"Marked as unused: %s. The API server refuses it from now on, and it is deleted after another %v without use. Remove the label %s to use it again",
			why, d.period, token.InvalidSinceLabel)
	}
	return c.handleAPIError(ctx, s, stepMark, err)
}

// remove deletes the Secret, after annotating its ServiceAccount if the name is generated.
func (c *Controller) remove(ctx context.Context, s state, d decision) error {
	why := fmt.Sprintf("marked as unused since %s, and not used within %v", s.invalidSince(), d.period)
	if c.cfg.DryRun {
		c.recordDryRun(ctx, s, stepDelete, api.ReasonWouldDeleteUnusedToken, "Would be deleted: "+why)
		return nil
	}
	undo := func() {}
	if cache.IsGeneratedName(s.secret.Account, s.secret.Name) {
		var err error
		if undo, err = c.annotateAccount(ctx, s); err != nil {
			return c.handleAPIError(ctx, s, stepDelete, err)
		}
	}
	err := c.cfg.Client.Secrets(s.secret.Namespace).Delete(ctx, s.secret.Name, metav1.DeleteOptions{
		Preconditions: &metav1.Preconditions{UID: &s.secret.UID, ResourceVersion: &s.secret.ResourceVersion},
	})
	switch {
	case err == nil:
		c.cfg.Recorder.Event(kube.Reference("Secret", s.secret), corev1.EventTypeNormal, api.ReasonDeletedUnusedToken, "Deleted: "+why)
	case apierrors.IsConflict(err):
		undo()
	}
	return c.handleAPIError(ctx, s, stepDelete, err)
}

// annotateAccount sets the clean-up annotation of the ServiceAccount to today's date, so that
// token generation makes no new Secret. It must be called before the deletion, whose event
// makes a token generator sync the account. undo restores the former value.
func (c *Controller) annotateAccount(ctx context.Context, s state) (undo func(), err error) {
	date := s.now.Format(dateFormat)
	former, had := s.account.Annotations[api.CleanedUpAnnotation]
	if former == date || c.pass.annotated[s.account.UID] == date {
		return func() {}, nil
	}
	written, err := c.patchAccount(ctx, &s.account.ObjectMeta, date)
	if err != nil {
		return nil, err
	}
	c.pass.annotated[s.account.UID] = date
	klog.FromContext(ctx).V(2).Info("Annotated service account with the date of a clean-up", "serviceAccount", klog.KObj(s.account), "date", date)
	return func() {
		var value any // nil: there was no annotation
		if had {
			value = former
		}
		delete(c.pass.annotated, s.account.UID)
		if _, err := c.patchAccount(ctx, &written.ObjectMeta, value); err != nil {
			klog.FromContext(ctx).Info("Could not remove the date of a clean-up that did not happen from service account", "serviceAccount", klog.KObj(s.account), "reason", kube.Redact(err))
		}
	}, nil
}

// patchAccount sets the clean-up annotation to value; nil removes it.
func (c *Controller) patchAccount(ctx context.Context, account *metav1.ObjectMeta, value any) (*corev1.ServiceAccount, error) {
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

// recordDryRun reports what would be done without dry run, by metric, log and event.
func (c *Controller) recordDryRun(ctx context.Context, s state, step, reason, text string) {
	c.metrics.countStep(step, resultDryRun)
	klog.FromContext(ctx).Info("Dry run: nothing was changed", "secret", klog.KObj(s.secret), "serviceAccount", klog.KRef(s.secret.Namespace, s.secret.Account), "step", step)
	c.cfg.Recorder.Event(kube.Reference("Secret", s.secret), corev1.EventTypeNormal, reason, text)
}

// handleAPIError handles the API server's response to a step, which may be success. It is
// not an apiresult.Write because each response is counted, and because the key of the work
// queue is a namespace while each of its Secrets gets an event of its own.
func (c *Controller) handleAPIError(ctx context.Context, s state, step string, err error) error {
	logger := klog.FromContext(ctx).WithValues("secret", klog.KObj(s.secret), "serviceAccount", klog.KRef(s.secret.Namespace, s.secret.Account), "step", step)
	switch {
	case err == nil:
		c.metrics.countStep(step, resultDone)
		logger.V(2).Info("Cleaned up an unused token", "created", s.secret.CreationTimestamp.UTC().Format(dateFormat),
			"lastUsed", s.secret.Labels[token.LastUsedLabel], "invalidSince", s.invalidSince())
		return nil
	case apierrors.IsConflict(err), apierrors.IsNotFound(err):
		// The token was used, or the object changed or was deleted: the next pass decides anew.
		c.metrics.countStep(step, resultChanged)
		logger.V(2).Info("Skipped an unused token, it or its service account changed meanwhile")
		return nil
	}
	c.metrics.countStep(step, resultError)
	if kube.IsPermanent(err) && !c.pass.rejected.Has(s.secret.UID) {
		c.pass.rejected.Insert(s.secret.UID)
		c.cfg.Recorder.Eventf(kube.Reference("Secret", s.secret), corev1.EventTypeWarning, api.ReasonFailedTokenCleanUp, "The API server refuses to %s this unused token: %v", step, kube.Redact(err))
	}
	return fmt.Errorf("%s secret %s: %w", step, klog.KObj(s.secret), kube.Redact(err))
}
