package tokensecret

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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
	_, err = c.cfg.Client.Secrets(secret.Namespace).Update(ctx, secret, metav1.UpdateOptions{})
	return c.answer(ctx, cached, "Filled token secret", "token was missing", err)
}

// repair patches what is wrong with a Secret that has a token. The token itself
// is not cached, so the object cannot be written whole.
func (c *Controller) repair(ctx context.Context, cached *informers.TokenSecret, account types.UID, ca cabundle.Bundle, reason string) error {
	data := map[string][]byte{corev1.ServiceAccountRootCAKey: ca.PEM()}
	if !cached.HasNamespace {
		data[corev1.ServiceAccountNamespaceKey] = []byte(cached.Namespace)
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{
			"uid":             cached.UID,
			"resourceVersion": cached.ResourceVersion,
			"annotations": map[string]string{
				corev1.ServiceAccountNameKey: cached.Account,
				corev1.ServiceAccountUIDKey:  string(account),
			},
		},
		"data": data,
	})
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

// answer reads what the API server made of a write. did says, in the past tense,
// what was done if it was.
func (c *Controller) answer(ctx context.Context, cached *informers.TokenSecret, did, reason string, err error) error {
	switch {
	case err == nil:
		klog.FromContext(ctx).V(2).Info(did, "secret", klog.KObj(cached), "serviceAccount", klog.KRef(cached.Namespace, cached.Account), "reason", reason)
		return nil
	case apierrors.IsConflict(err), apierrors.IsNotFound(err):
		return nil // it changed or went: its event decides anew
	case apierrors.IsInvalid(err):
		err = fmt.Errorf("write secret %s: %w", klog.KObj(cached), invalid(err))
		if !loop.Repeated(ctx, err) {
			c.cfg.Recorder.Eventf(&corev1.ObjectReference{
				Kind: "Secret", APIVersion: "v1", Namespace: cached.Namespace, Name: cached.Name, UID: cached.UID,
			}, corev1.EventTypeWarning, ReasonFailedUpdate, "%v. If it is immutable, delete it and create it again without that", errors.Unwrap(err))
		}
		return err
	default:
		return fmt.Errorf("write secret %s: %w", klog.KObj(cached), err)
	}
}

// invalid says which fields the API server refuses and why, without its own text,
// which may quote a value.
func invalid(err error) error {
	fields := []string{}
	if status := apierrors.APIStatus(nil); errors.As(err, &status) && status.Status().Details != nil {
		for _, cause := range status.Status().Details.Causes {
			fields = append(fields, fmt.Sprintf("%s (%s)", cause.Field, cause.Type))
		}
	}
	if len(fields) == 0 {
		return errors.New("the API server refuses the change as invalid and names no field")
	}
	return fmt.Errorf("the API server refuses the change as invalid: %s", strings.Join(fields, ", "))
}
