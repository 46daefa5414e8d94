package signingkey

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/kube"
	"github.com/sakeeper/sakeeper/pkg/token"
)

func (c *Check) sync(ctx context.Context, t task) (again time.Duration, err error) {
	if t == removeFormer {
		return c.removeFormer(ctx)
	}
	return c.review(ctx)
}

// review reviews the first token once.
func (c *Check) review(ctx context.Context) (again time.Duration, err error) {
	t := c.candidate()
	if t == nil {
		return 0, nil
	}
	result, err := c.reviewer.Review(ctx, t.compact)
	if err != nil {
		return 0, c.recordError(t, err)
	}
	if result.Username == t.claims.Subject() {
		c.accept(ctx, t)
		return 0, nil
	}
	if result.Username != "" {
		result.Reason = "the user of the token is " + result.Username
	}
	secret, err := c.secretWith(ctx, t)
	if err != nil {
		return 0, c.recordError(t, err)
	}
	if secret == nil {
		klog.FromContext(ctx).V(2).Info("The secret of the first token has changed, the next token is checked instead", "secret", klog.KRef(t.claims.Namespace, t.claims.SecretName))
		c.drop(t)
		return 0, nil
	}
	return c.refuse(ctx, t, result.Reason), nil
}

// candidate returns the first token if it has been written, or nil.
func (c *Check) candidate() *firstToken {
	c.mu.Lock()
	t := c.first
	written := t != nil && t.written
	c.mu.Unlock()
	if t == nil {
		c.wakeSome()
	}
	if !written {
		return nil
	}
	return t
}

func (c *Check) accept(ctx context.Context, t *firstToken) {
	c.mu.Lock()
	if c.first == t {
		c.accepted, c.first = t.keyID, nil
	}
	c.mu.Unlock()
	klog.FromContext(ctx).Info("The API server accepts the signing key", "keyID", t.keyID)
	c.wake()
}

// recordError records that a review failed.
func (c *Check) recordError(t *firstToken, err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	t.reason = err.Error()
	return fmt.Errorf("check signing key %s: %w", t.keyID, err)
}

// refuse records a refusal and returns the delay of the next review.
func (c *Check) refuse(ctx context.Context, t *firstToken, reason string) time.Duration {
	now := c.cfg.Clock.Now()
	c.mu.Lock()
	if t.refusedSince.IsZero() {
		t.refusedSince = now
	}
	since := now.Sub(t.refusedSince)
	changed := since >= maxLag && !t.refused
	t.refused = since >= maxLag
	t.reason = reason
	c.mu.Unlock()
	if changed {
		klog.FromContext(ctx).Error(nil, "The API server refuses the signing key, no tokens are written", "keyID", t.keyID, "reason", reason)
		c.cfg.Recorder.Eventf(&corev1.ObjectReference{
			Kind: "Secret", APIVersion: "v1", Namespace: t.claims.Namespace, Name: t.claims.SecretName,
		}, corev1.EventTypeWarning, api.ReasonSigningKeyRefused,
			"The API server refuses the token in this secret, signed by key %s: %s. No other tokens are written. Add the public key to --service-account-key-file of the API server, or give the controllers a key that it accepts", t.keyID, reason)
	}
	return min(max(since, minReviewDelay), maxReviewDelay)
}

// secretWith returns the Secret of a first token, or nil if it does not hold the token any
// more: then a refusal is not about the key.
func (c *Check) secretWith(ctx context.Context, t *firstToken) (*corev1.Secret, error) {
	secret, err := c.cfg.Secrets.Secrets(t.claims.Namespace).Get(ctx, t.claims.SecretName, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil //nolint:nilnil // it does not hold the token
	case err != nil:
		return nil, fmt.Errorf("get secret %s/%s: %w", t.claims.Namespace, t.claims.SecretName, err)
	}
	same := subtle.ConstantTimeCompare(secret.Data[corev1.ServiceAccountTokenKey], []byte(t.compact)) == 1
	if !same || secret.Labels[token.InvalidSinceLabel] != "" || secret.DeletionTimestamp != nil {
		return nil, nil //nolint:nilnil // it does not hold the token
	}
	return secret, nil
}

// removeFormer removes first tokens of former keys from their Secrets, unless the API server
// accepts them.
func (c *Check) removeFormer(ctx context.Context) (again time.Duration, err error) {
	c.mu.Lock()
	former := slices.Clone(c.former)
	c.mu.Unlock()
	var errs []error
	for _, t := range former {
		if !c.isWritten(t) {
			again = retryDelay // the write has not returned yet
			continue
		}
		if err := c.remove(ctx, t); err != nil {
			errs = append(errs, fmt.Errorf("remove the refused token of secret %s/%s: %w", t.claims.Namespace, t.claims.SecretName, err))
			continue
		}
		c.mu.Lock()
		c.former = slices.DeleteFunc(c.former, func(f *firstToken) bool { return f == t })
		c.mu.Unlock()
	}
	return again, errors.Join(errs...)
}

func (c *Check) isWritten(t *firstToken) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return t.written
}

func (c *Check) remove(ctx context.Context, t *firstToken) error {
	result, err := c.reviewer.Review(ctx, t.compact)
	if err != nil || result.Username == t.claims.Subject() {
		return err
	}
	secret, err := c.secretWith(ctx, t)
	if err != nil || secret == nil {
		return err
	}
	patch, err := kube.MergePatch(secret, map[string]any{"data": map[string]any{corev1.ServiceAccountTokenKey: nil}})
	if err != nil {
		return err
	}
	_, err = c.cfg.Secrets.Secrets(secret.Namespace).Patch(ctx, secret.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil // the Secret was deleted
	case err != nil:
		return kube.Redact(err)
	}
	klog.FromContext(ctx).V(2).Info("Removed a token that the API server refused", "secret", klog.KObj(secret), "keyID", t.keyID)
	return nil
}
