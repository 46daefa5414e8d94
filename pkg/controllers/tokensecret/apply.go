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
	"github.com/sakeeper/sakeeper/pkg/internal/workqueue"
	"github.com/sakeeper/sakeeper/pkg/internal/writebackoff"
	"github.com/sakeeper/sakeeper/pkg/kube"
	"github.com/sakeeper/sakeeper/pkg/signingkey"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// dataField is the one of a Secret that holds the token.
const dataField = "data"

// lookAgain is when to look at a Secret again after a conflict.
const lookAgain = time.Second

// fill writes the cached object back with everything it lacks: one PUT, which the
// resourceVersion of that object protects.
func (c *Controller) fill(ctx context.Context, cached *cache.TokenSecret, account types.UID, ca cabundle.Bundle) (time.Duration, error) {
	object, content := contestedSecret(cached), c.contentOfToken()
	if wait := c.truce(ctx, c.rests.contents, object, content, objectReference(cached)); wait > 0 {
		return wait, nil
	}
	err := c.cfg.Tokens.Write(ctx, claimsOf(cached, account), c.wake(cached), func(ctx context.Context, compact string) error {
		secret := cached.Unfilled.DeepCopy()
		if secret.Data == nil {
			secret.Data = map[string][]byte{}
		}
		secret.Data[corev1.ServiceAccountTokenKey] = []byte(compact)
		secret.Data[corev1.ServiceAccountRootCAKey] = ca.PEM()
		if !cached.HasNamespace {
			secret.Data[corev1.ServiceAccountNamespaceKey] = []byte(secret.Namespace)
		}
		metav1.SetMetaDataAnnotation(&secret.ObjectMeta, corev1.ServiceAccountUIDKey, string(account))
		if cached.AccountUID == "" {
			c.owners.namedHere.Add(cached.UID, cached.ResourceVersion)
		}
		_, err := c.cfg.Client.Secrets(secret.Namespace).Update(ctx, secret, metav1.UpdateOptions{})
		return err
	})
	if err == nil {
		c.rests.contents.Record(object, content)
		c.secrets.Completed(cached.Unfilled.CreationTimestamp.Time)
	}
	return c.answer(ctx, cached, "Filled token secret", "token was missing", err)
}

// resign replaces a token, and puts right what else is wrong. It revokes every copy
// of the old one.
func (c *Controller) resign(ctx context.Context, cached *cache.TokenSecret, account types.UID, ca cabundle.Bundle, reason string) (time.Duration, error) {
	object, content := contestedSecret(cached), c.contentOfToken()
	if wait := c.rests.resigns.When(toolscache.MetaObjectToName(cached)); wait > 0 {
		return wait, workqueue.ErrRequeueLater
	}
	if wait := c.truce(ctx, c.rests.contents, object, content, objectReference(cached)); wait > 0 {
		return wait, nil
	}
	var keyID string
	err := c.cfg.Tokens.Write(ctx, claimsOf(cached, account), c.wake(cached), func(ctx context.Context, compact string) error {
		keyID = token.UnverifiedKeyID(compact)
		return c.patch(ctx, cached, account, map[string][]byte{
			corev1.ServiceAccountTokenKey:     []byte(compact),
			corev1.ServiceAccountRootCAKey:    ca.PEM(),
			corev1.ServiceAccountNamespaceKey: []byte(cached.Namespace),
		})
	})
	if err == nil {
		c.rests.contents.Record(object, content)
		c.cfg.Recorder.Eventf(objectReference(cached), corev1.EventTypeNormal, api.ReasonResignedToken,
			"The token was signed anew, with key %s, because %s. Copies of the old one are refused from now on", keyID, reason)
	}
	return c.answer(ctx, cached, "Signed a token anew", reason, err)
}

// noteReview says on the Secret what the API server said about its token. Where notes
// are removed or refused, the exam goes on without.
func (c *Controller) noteReview(ctx context.Context, s state, reason string) (time.Duration, error) {
	wait, err := c.writeNote(ctx, s, reason)
	if s.token != suspect || wait == 0 && err == nil {
		return wait, err
	}
	waitExam, errExam := c.examine(ctx, s.secret, s.owner.account)
	return both(wait, err, waitExam, errExam)
}

func (c *Controller) writeNote(ctx context.Context, s state, reason string) (time.Duration, error) {
	object := contestedSecret(s.secret)
	if wait := c.truce(ctx, c.rests.notes, object, s.note, objectReference(s.secret)); wait > 0 {
		return wait, nil
	}
	patch, err := annotationPatch(s.secret, map[string]any{api.ReviewedAnnotation: s.note}, nil)
	if err != nil {
		return 0, err
	}
	_, err = c.cfg.Client.Secrets(s.secret.Namespace).Patch(ctx, s.secret.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	if err == nil {
		c.rests.notes.Record(object, s.note)
	}
	return c.answer(ctx, s.secret, "Noted a review of a token", reason, err)
}

// release takes back a token and a UID that this process wrote while the cache
// still had an account that was gone. The Secret is filled anew after that.
func (c *Controller) release(ctx context.Context, cached *cache.TokenSecret, reason string) (time.Duration, error) {
	patch, err := annotationPatch(cached, map[string]any{corev1.ServiceAccountUIDKey: nil}, map[string]any{corev1.ServiceAccountTokenKey: nil})
	if err != nil {
		return 0, err
	}
	_, err = c.cfg.Client.Secrets(cached.Namespace).Patch(ctx, cached.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	return c.answer(ctx, cached, "Took back a token", reason, err)
}

// turnToRepair is how long a repair must wait, if at all.
func (c *Controller) turnToRepair(ctx context.Context, cached *cache.TokenSecret, ca cabundle.Bundle) (time.Duration, error) {
	if wait := c.rests.repairs.When(toolscache.MetaObjectToName(cached)); wait > 0 {
		return wait, workqueue.ErrRequeueLater
	}
	return c.truce(ctx, c.rests.contents, contestedSecret(cached), contentOfCA(ca), objectReference(cached)), nil
}

// repair patches what is wrong with a Secret that has a token. The token itself
// is not cached, so the object cannot be written whole.
func (c *Controller) repair(ctx context.Context, cached *cache.TokenSecret, account types.UID, ca cabundle.Bundle, reason string) (time.Duration, error) {
	data := map[string][]byte{corev1.ServiceAccountRootCAKey: ca.PEM()}
	if !cached.HasNamespace {
		data[corev1.ServiceAccountNamespaceKey] = []byte(cached.Namespace)
	}
	err := c.patch(ctx, cached, account, data)
	if err == nil {
		c.rests.contents.Record(contestedSecret(cached), contentOfCA(ca))
	}
	return c.answer(ctx, cached, "Repaired token secret", reason, err)
}

func (c *Controller) patch(ctx context.Context, cached *cache.TokenSecret, account types.UID, data map[string][]byte) error {
	annotations := map[string]any{corev1.ServiceAccountNameKey: cached.Account, corev1.ServiceAccountUIDKey: string(account)}
	if _, ok := cached.Annotations[api.ReviewedAnnotation]; ok && data[corev1.ServiceAccountTokenKey] != nil {
		annotations[api.ReviewedAnnotation] = nil // it was about the token before
	}
	patch, err := annotationPatch(cached, annotations, data)
	if err != nil {
		return err
	}
	_, err = c.cfg.Client.Secrets(cached.Namespace).Patch(ctx, cached.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}

// remove deletes the Secret that was decided on: its UID, and its resourceVersion
// too, because the decision read annotations.
func (c *Controller) remove(ctx context.Context, cached *cache.TokenSecret, reason string) (time.Duration, error) {
	// By name and absent account: what somebody keeps creating again is another object
	// each time, but a Secret of another account, or in another life of its namespace,
	// is another matter.
	const content = "gone"
	object := contested{namespace: cached.Namespace, name: cached.Name, uid: string(cached.AccountUID)}
	if ns, ok := cache.Get(c.cfg.Namespaces, cached.Namespace); ok {
		object.uid += "/" + string(ns.UID)
	}
	if wait := c.truce(ctx, c.rests.deletions, object, content, objectReference(cached)); wait > 0 {
		return wait, nil
	}
	err := c.cfg.Client.Secrets(cached.Namespace).Delete(ctx, cached.Name, metav1.DeleteOptions{
		Preconditions: &metav1.Preconditions{UID: &cached.UID, ResourceVersion: &cached.ResourceVersion},
	})
	if err == nil {
		c.rests.deletions.Record(object, content)
	}
	return c.answer(ctx, cached, "Deleted token secret", reason, err)
}

func claimsOf(secret *cache.TokenSecret, account types.UID) token.LegacyClaims {
	return token.LegacyClaims{
		Namespace:          secret.Namespace,
		SecretName:         secret.Name,
		ServiceAccountName: secret.Account,
		ServiceAccountUID:  string(account),
	}
}

// contentOfToken names what is contested about a token, without the token.
func (c *Controller) contentOfToken() string {
	return "token of key " + c.cfg.Keys().Signing().PublicKey().ID()
}

func contentOfCA(ca cabundle.Bundle) string { return "ca.crt " + ca.Fingerprint() }

func contestedSecret(secret *cache.TokenSecret) contested {
	return contested{namespace: secret.Namespace, name: secret.Name, uid: string(secret.UID)}
}

// wake queues secret again when tokens may be written.
func (c *Controller) wake(secret *cache.TokenSecret) func() {
	key := toolscache.MetaObjectToName(secret)
	return func() { c.secrets.Add(key) }
}

// truce returns how long content must not be written to object, and tells people
// when that begins.
func (c *Controller) truce(ctx context.Context, tracker *writebackoff.Tracker[contested], object contested, content string, about *corev1.ObjectReference) time.Duration {
	verdict := tracker.Allow(object, content)
	writebackoff.Report(ctx, c.cfg.Recorder, about, verdict)
	return verdict.Wait
}

func objectReference(secret *cache.TokenSecret) *corev1.ObjectReference {
	return &corev1.ObjectReference{Kind: "Secret", APIVersion: "v1", Namespace: secret.Namespace, Name: secret.Name, UID: secret.UID}
}

// annotationPatch changes annotations and, unless it is nil, data.
func annotationPatch(target *cache.TokenSecret, annotations map[string]any, data any) ([]byte, error) {
	change := map[string]any{"metadata": map[string]any{"annotations": annotations}}
	if data != nil {
		change[dataField] = data
	}
	return kube.MergePatch(target, change)
}

// answer reads what the API server made of a write. did says, in the past tense,
// what was done if it was.
func (c *Controller) answer(ctx context.Context, cached *cache.TokenSecret, did, reason string, err error) (time.Duration, error) {
	switch {
	case err == nil:
		klog.FromContext(ctx).V(2).Info(did, "secret", klog.KObj(cached), "serviceAccount", klog.KRef(cached.Namespace, cached.Account), "reason", reason)
		return 0, nil
	case errors.Is(err, signingkey.ErrWaiting):
		klog.FromContext(ctx).V(4).Info("Put off a token", "secret", klog.KObj(cached), "reason", err.Error())
		return 0, err // it will be woken
	case apierrors.IsConflict(err):
		// It changed, and its event decides anew. But not every conflict has an event
		// behind it: admission may answer with one too.
		return lookAgain, nil
	case apierrors.IsNotFound(err):
		return 0, nil // it went, and its event decides anew
	}
	if apierrors.IsInvalid(err) && workqueue.Report(ctx) {
		c.cfg.Recorder.Eventf(objectReference(cached), corev1.EventTypeWarning, api.ReasonFailedUpdateTokenSecret, "%s", advise(err))
	}
	return 0, fmt.Errorf("write secret %s: %w", klog.KObj(cached), kube.Redact(err))
}

// advise says what the API server refuses and what to do about it.
func advise(err error) string {
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
