package tokensecret

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/cabundle"
	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/internal/apiresult"
	"github.com/sakeeper/sakeeper/pkg/internal/workqueue"
	"github.com/sakeeper/sakeeper/pkg/kube"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// dataField is the field of a Secret that holds the token.
const dataField = "data"

// fill writes the cached object back with everything that it lacks, by one PUT that the
// resourceVersion of that object protects.
func (c *Controller) fill(ctx context.Context, cached *cache.TokenSecret, account types.UID, ca cabundle.Bundle) (requeueAfter time.Duration, err error) {
	key, content := secretKey(cached), c.contentOfToken()
	if wait := c.writeBackoff(ctx, c.limiters.contents, key, content, cached); wait > 0 {
		return wait, nil
	}
	compact, requeueAfter, err := c.cfg.Tokens.Sign(ctx, claimsOf(cached, account))
	if err != nil {
		return c.handleSignError(ctx, cached, requeueAfter, err)
	}
	secret := cached.Unfilled.DeepCopy()
	if secret.Data == nil {
		secret.Data = map[string][]byte{}
	}
	secret.Data[corev1.ServiceAccountTokenKey] = []byte(compact)
	secret.Data[corev1.ServiceAccountRootCAKey] = ca.PEM()
	secret.Data[corev1.ServiceAccountNamespaceKey] = []byte(secret.Namespace)
	metav1.SetMetaDataAnnotation(&secret.ObjectMeta, corev1.ServiceAccountUIDKey, string(account))
	if cached.AccountUID == "" {
		c.owners.filledFrom.Add(cached.UID, cached.ResourceVersion)
	}
	_, err = c.cfg.Client.Secrets(secret.Namespace).Update(ctx, secret, metav1.UpdateOptions{})
	if err == nil {
		c.limiters.contents.Record(key, content)
		c.queue.Completed(cached.Unfilled.CreationTimestamp.Time)
	}
	return c.handleAPIError(ctx, cached, "Filled token secret", "token was missing", err)
}

// resign replaces a token, and whatever else differs. All copies of the old token become invalid.
func (c *Controller) resign(ctx context.Context, cached *cache.TokenSecret, account types.UID, ca cabundle.Bundle, reason string) (requeueAfter time.Duration, err error) {
	key, content := secretKey(cached), c.contentOfToken()
	if wait := c.limiters.resigns.When(toolscache.MetaObjectToName(cached)); wait > 0 {
		return wait, workqueue.ErrRequeueLater
	}
	if wait := c.writeBackoff(ctx, c.limiters.contents, key, content, cached); wait > 0 {
		return wait, nil
	}
	compact, requeueAfter, err := c.cfg.Tokens.Sign(ctx, claimsOf(cached, account))
	if err != nil {
		return c.handleSignError(ctx, cached, requeueAfter, err)
	}
	err = c.patch(ctx, cached, account, map[string][]byte{
		corev1.ServiceAccountTokenKey:     []byte(compact),
		corev1.ServiceAccountRootCAKey:    ca.PEM(),
		corev1.ServiceAccountNamespaceKey: []byte(cached.Namespace),
	})
	if err == nil {
		c.limiters.contents.Record(key, content)
		c.cfg.Recorder.Eventf(kube.Reference("Secret", cached), corev1.EventTypeNormal, api.ReasonResignedToken,
			"The token was signed anew, with key %s, because %s. Copies of the old one are refused from now on", token.UnverifiedKeyID(compact), reason)
	}
	return c.handleAPIError(ctx, cached, "Signed a token anew", reason, err)
}

// noteReview notes on the Secret that the API server accepts its token, so that the next process does
// not ask again.
func (c *Controller) noteReview(ctx context.Context, s state, reason string) (requeueAfter time.Duration, err error) {
	key := secretKey(s.secret)
	if wait := c.writeBackoff(ctx, c.limiters.notes, key, s.note, s.secret); wait > 0 {
		return wait, nil
	}
	patch, err := annotationPatch(s.secret, map[string]any{api.ReviewedAnnotation: s.note}, nil)
	if err != nil {
		return 0, err
	}
	_, err = c.cfg.Client.Secrets(s.secret.Namespace).Patch(ctx, s.secret.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	if err == nil {
		c.limiters.notes.Record(key, s.note)
	}
	return c.handleAPIError(ctx, s.secret, "Noted that the API server accepts a token", reason, err)
}

// undoFill removes a token and a UID that this process wrote for an account that was deleted already.
// After that the Secret is filled again.
func (c *Controller) undoFill(ctx context.Context, cached *cache.TokenSecret, reason string) (requeueAfter time.Duration, err error) {
	patch, err := annotationPatch(cached, map[string]any{corev1.ServiceAccountUIDKey: nil}, map[string]any{corev1.ServiceAccountTokenKey: nil})
	if err != nil {
		return 0, err
	}
	_, err = c.cfg.Client.Secrets(cached.Namespace).Patch(ctx, cached.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	return c.handleAPIError(ctx, cached, "Removed a token that was made for a deleted service account", reason, err)
}

// repair patches ca.crt, and namespace if it differs, of a Secret that has a token. The token is
// not cached, so that the object cannot be written whole.
func (c *Controller) repair(ctx context.Context, cached *cache.TokenSecret, account types.UID, ca cabundle.Bundle, reason string) (requeueAfter time.Duration, err error) {
	data := map[string][]byte{corev1.ServiceAccountRootCAKey: ca.PEM()}
	if !cached.NamespaceRight {
		data[corev1.ServiceAccountNamespaceKey] = []byte(cached.Namespace)
	}
	err = c.patch(ctx, cached, account, data)
	switch {
	case err == nil:
		c.limiters.contents.Record(secretKey(cached), contentOfCA(ca))
	case kube.IsPermanent(err):
		c.limiters.refusals.Record(secretKey(cached), contentOfRefusal(cached, ca))
	}
	return c.handleAPIError(ctx, cached, "Repaired token secret", reason, err)
}

func (c *Controller) patch(ctx context.Context, cached *cache.TokenSecret, account types.UID, data map[string][]byte) error {
	annotations := map[string]any{corev1.ServiceAccountNameKey: cached.Account, corev1.ServiceAccountUIDKey: string(account)}
	if _, ok := cached.Annotations[api.ReviewedAnnotation]; ok && data[corev1.ServiceAccountTokenKey] != nil {
		annotations[api.ReviewedAnnotation] = nil // it is about the former token
	}
	patch, err := annotationPatch(cached, annotations, data)
	if err != nil {
		return err
	}
	_, err = c.cfg.Client.Secrets(cached.Namespace).Patch(ctx, cached.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}

// remove deletes the Secret with its UID and, because the decision is based on annotations, its
// resourceVersion as preconditions. An event on the namespace says so.
func (c *Controller) remove(ctx context.Context, s state, reason string) (requeueAfter time.Duration, err error) {
	cached := s.secret
	if s.doubted {
		if wait := c.limiters.doubted.When(toolscache.MetaObjectToName(cached)); wait > 0 {
			return wait, workqueue.ErrRequeueLater
		}
	}
	key := c.deletionKey(cached)
	if wait := c.writeBackoff(ctx, c.limiters.deletions, key, contentOfDeletion, cached); wait > 0 {
		return wait, nil
	}
	err = c.cfg.Client.Secrets(cached.Namespace).Delete(ctx, cached.Name, metav1.DeleteOptions{
		Preconditions: &metav1.Preconditions{UID: &cached.UID, ResourceVersion: &cached.ResourceVersion},
	})
	if err == nil {
		c.limiters.deletions.Record(key, contentOfDeletion)
		c.deleted.add(cached, s.owner)
	}
	return c.handleAPIError(ctx, cached, "Deleted token secret", reason, err)
}

// leaveAlone records one event on a Secret that stays as it is on purpose.
func (c *Controller) leaveAlone(ctx context.Context, s state, text string) {
	if !c.told.first(s.secret, text) {
		return
	}
	severity, reason := corev1.EventTypeWarning, api.ReasonKeptToken
	switch {
	case text == impossibleAccountText:
		reason = api.ReasonImpossibleServiceAccount
	case s.token == accepted:
		severity = corev1.EventTypeNormal
	}
	klog.FromContext(ctx).V(2).Info("Left a token secret alone", "secret", klog.KObj(s.secret), "reason", text)
	c.cfg.Recorder.Event(kube.Reference("Secret", s.secret), severity, reason, text)
}

func claimsOf(secret *cache.TokenSecret, account types.UID) token.LegacyClaims {
	return token.LegacyClaims{
		Namespace:          secret.Namespace,
		SecretName:         secret.Name,
		ServiceAccountName: secret.Account,
		ServiceAccountUID:  string(account),
	}
}

// annotationPatch changes annotations and, unless it is nil, data.
func annotationPatch(target *cache.TokenSecret, annotations map[string]any, data any) ([]byte, error) {
	change := map[string]any{"metadata": map[string]any{"annotations": annotations}}
	if data != nil {
		change[dataField] = data
	}
	return kube.MergePatch(target, change)
}

// handleSignError turns an error of Tokens into the result of a sync.
func (c *Controller) handleSignError(ctx context.Context, cached *cache.TokenSecret, requeueAfter time.Duration, err error) (time.Duration, error) {
	klog.FromContext(ctx).V(4).Info("Did not write a token yet", "secret", klog.KObj(cached), "reason", err.Error())
	return requeueAfter, fmt.Errorf("sign the token of secret %s: %w", klog.KObj(cached), err)
}

// handleAPIError turns the API server's response to a write into the result of a sync. done is the
// log message for a success, in the past tense.
func (c *Controller) handleAPIError(ctx context.Context, cached *cache.TokenSecret, done, reason string, err error) (requeueAfter time.Duration, _ error) {
	if err == nil {
		klog.FromContext(ctx).V(2).Info(done, "secret", klog.KObj(cached), "serviceAccount", klog.KRef(cached.Namespace, cached.Account), "reason", reason)
		return 0, nil
	}
	return apiresult.Write{
		Doing: "write secret " + klog.KObj(cached).String(), Recorder: c.cfg.Recorder,
		Object: kube.Reference("Secret", cached), Reason: api.ReasonFailedUpdateTokenSecret, Message: warning,
		Reported: apierrors.IsInvalid, // what a user can mend on the Secret itself
	}.Change(ctx, err)
}

// warning returns the text of an event that says what the API server refuses and how to fix it.
func warning(err error) string {
	fields := []string{}
	if status := apierrors.APIStatus(nil); errors.As(err, &status) && status.Status().Details != nil {
		for _, cause := range status.Status().Details.Causes {
			switch {
			case cause.Field == dataField && cause.Type == metav1.CauseType(field.ErrorTypeTooLong):
				return "The API server refuses the change, because this secret would become too large. Remove what else is in it"
			case cause.Field == dataField:
				return "The API server refuses the change, because this secret is immutable. Delete it and create it again without that"
			case cause.Field != "":
				fields = append(fields, cause.Field)
			}
		}
	}
	if len(fields) == 0 {
		return "An admission policy or webhook of the API server refuses the change of this secret"
	}
	return "The API server refuses the change as invalid: " + strings.Join(fields, ", ")
}
