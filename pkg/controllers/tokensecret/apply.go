package tokensecret

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/sakeeper/sakeeper/pkg/cabundle"
	"github.com/sakeeper/sakeeper/pkg/informers"
	"github.com/sakeeper/sakeeper/pkg/loop"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// ReasonFailedUpdate is the event on a token Secret that the API server refuses
// to change, for example because it was made immutable.
const ReasonFailedUpdate = "FailedUpdateTokenSecret"

// fill writes the cached object back with everything it lacks: one PUT, which the
// resourceVersion of that object protects.
func (c *Controller) fill(ctx context.Context, cached *informers.TokenSecret, account types.UID, ca cabundle.Bundle) error {
	compact, err := c.cfg.Signer.SignLegacy(ctx, token.LegacyClaims{
		Namespace:          cached.Namespace,
		SecretName:         cached.Name,
		ServiceAccountName: cached.Account,
		ServiceAccountUID:  string(account),
	})
	if err != nil {
		return fmt.Errorf("fill secret %s: %w", klog.KObj(cached), err)
	}
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
		c.namedHere.Add(cached.UID, cached.ResourceVersion)
	}
	_, err = c.cfg.Client.Secrets(secret.Namespace).Update(ctx, secret, metav1.UpdateOptions{})
	return c.answer(ctx, cached, "Filled token secret", "token was missing", err)
}

// release takes back a token and a UID that this process wrote while the cache
// still had an account that was gone. The Secret is filled anew after that.
func (c *Controller) release(ctx context.Context, cached *informers.TokenSecret, reason string) error {
	patch, err := mergePatch(&cached.ObjectMeta,
		map[string]any{corev1.ServiceAccountUIDKey: nil},
		map[string]any{"data": map[string]any{corev1.ServiceAccountTokenKey: nil}})
	if err != nil {
		return err
	}
	_, err = c.cfg.Client.Secrets(cached.Namespace).Patch(ctx, cached.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	return c.answer(ctx, cached, "Took back a token", reason, err)
}

// repair patches what is wrong with a Secret that has a token. The token itself
// is not cached, so the object cannot be written whole.
func (c *Controller) repair(ctx context.Context, cached *informers.TokenSecret, account types.UID, ca cabundle.Bundle, reason string) error {
	data := map[string][]byte{corev1.ServiceAccountRootCAKey: ca.PEM()}
	if !cached.HasNamespace {
		data[corev1.ServiceAccountNamespaceKey] = []byte(cached.Namespace)
	}
	patch, err := mergePatch(&cached.ObjectMeta,
		map[string]any{corev1.ServiceAccountNameKey: cached.Account, corev1.ServiceAccountUIDKey: string(account)},
		map[string]any{"data": data})
	if err != nil {
		return err
	}
	_, err = c.cfg.Client.Secrets(cached.Namespace).Patch(ctx, cached.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	return c.answer(ctx, cached, "Repaired token secret", reason, err)
}

// remove deletes the Secret that was decided on: its UID, and its resourceVersion
// too, because the decision read annotations.
func (c *Controller) remove(ctx context.Context, cached *informers.TokenSecret, reason string) error {
	err := c.cfg.Client.Secrets(cached.Namespace).Delete(ctx, cached.Name, metav1.DeleteOptions{
		Preconditions: &metav1.Preconditions{UID: &cached.UID, ResourceVersion: &cached.ResourceVersion},
	})
	return c.answer(ctx, cached, "Deleted token secret", reason, err)
}

// mergePatch makes a JSON merge patch (RFC 7386) of annotations and top-level
// fields that the API server refuses for another object than target, and for
// another version of it.
func mergePatch(target *metav1.ObjectMeta, annotations, fields map[string]any) ([]byte, error) {
	metadata := map[string]any{"uid": target.UID, "resourceVersion": target.ResourceVersion}
	if len(annotations) > 0 {
		metadata["annotations"] = annotations
	}
	patch := map[string]any{"metadata": metadata}
	maps.Copy(patch, fields)
	return json.Marshal(patch)
}

// answer reads what the API server made of a write. did says, in the past tense,
// what was done if it was.
func (c *Controller) answer(ctx context.Context, cached *informers.TokenSecret, did, reason string, err error) error {
	switch {
	case err == nil:
		klog.FromContext(ctx).V(2).Info(did, "secret", klog.KObj(cached), "serviceAccount", klog.KRef(cached.Namespace, cached.Account), "reason", reason)
		return nil
	case apierrors.IsConflict(err), apierrors.IsNotFound(err):
		return nil // it changed or went: its event decides anew
	}
	if apierrors.IsInvalid(err) && loop.Report(ctx) {
		c.cfg.Recorder.Eventf(&corev1.ObjectReference{
			Kind: "Secret", APIVersion: "v1", Namespace: cached.Namespace, Name: cached.Name, UID: cached.UID,
		}, corev1.EventTypeWarning, ReasonFailedUpdate, "%s", advise(err))
	}
	return fmt.Errorf("write secret %s: %w", klog.KObj(cached), withhold(err))
}

// advise says what the API server refuses and what to do about it.
func advise(err error) string {
	fields := []string{}
	if status := apierrors.APIStatus(nil); errors.As(err, &status) && status.Status().Details != nil {
		for _, cause := range status.Status().Details.Causes {
			if cause.Field != "" {
				fields = append(fields, cause.Field)
			}
		}
	}
	switch {
	case len(fields) == 0:
		return "An admission policy or webhook of the API server refuses the change of this secret"
	case slices.Contains(fields, "data"):
		return "The API server refuses the change, because this secret is immutable. Delete it and create it again without that"
	default:
		return "The API server refuses the change as invalid: " + strings.Join(fields, ", ")
	}
}

// withhold replaces an error that quotes a token, which an admission webhook that
// describes the object could do. A JWT begins with eyJ, and in base64 with ZXlK.
func withhold(err error) error {
	if text := err.Error(); !strings.Contains(text, "eyJ") && !strings.Contains(text, "ZXlK") {
		return err
	}
	return fmt.Errorf("%s, in words that are withheld because they quote a token", apierrors.ReasonForError(err))
}
