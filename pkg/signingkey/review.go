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

func (g *Check) sync(ctx context.Context, q question) (again time.Duration, err error) {
	if q == aboutFormer {
		return g.takeBack(ctx)
	}
	return g.review(ctx)
}

// review asks once about the canary.
func (g *Check) review(ctx context.Context) (again time.Duration, err error) {
	t := g.candidate()
	if t == nil {
		return 0, nil
	}
	answer, err := g.reviewer.Review(ctx, t.compact)
	if err != nil {
		return 0, g.unanswered(t, err)
	}
	if answer.Username == t.claims.Subject() {
		g.accept(ctx, t)
		return 0, nil
	}
	if answer.Username != "" {
		answer.Reason = "it takes the token for one of " + answer.Username
	}
	secret, err := g.holder(ctx, t)
	if err != nil {
		return 0, g.unanswered(t, err)
	}
	if secret == nil {
		klog.FromContext(ctx).V(2).Info("Dropped the canary, its secret changed", "secret", klog.KRef(t.claims.Namespace, t.claims.SecretName))
		g.drop(t)
		return 0, nil
	}
	return g.refuse(ctx, t, answer.Reason), nil
}

// candidate is the canary, when it can be asked about.
func (g *Check) candidate() *trial {
	g.mu.Lock()
	t := g.trial
	written := t != nil && t.written
	g.mu.Unlock()
	if t == nil {
		g.wakeSome()
	}
	if !written {
		return nil
	}
	return t
}

func (g *Check) accept(ctx context.Context, t *trial) {
	g.mu.Lock()
	if g.trial == t {
		g.accepted, g.trial = t.keyID, nil
	}
	g.mu.Unlock()
	klog.FromContext(ctx).Info("The API server accepts the signing key", "keyID", t.keyID)
	g.wake()
}

// unanswered notes that there was neither yes nor no.
func (g *Check) unanswered(t *trial, err error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	t.trouble = err.Error()
	return fmt.Errorf("check signing key %s: %w", t.keyID, err)
}

// refuse notes a refusal and returns when to ask again.
func (g *Check) refuse(ctx context.Context, t *trial, words string) time.Duration {
	now := g.cfg.Clock.Now()
	g.mu.Lock()
	if t.refusedSince.IsZero() {
		t.refusedSince = now
	}
	since := now.Sub(t.refusedSince)
	news := since >= lag && !t.refused
	t.refused = since >= lag
	t.trouble = words
	g.mu.Unlock()
	if news {
		klog.FromContext(ctx).Error(nil, "The API server refuses the signing key, no tokens are written", "keyID", t.keyID, "reason", words)
		g.cfg.Recorder.Eventf(&corev1.ObjectReference{
			Kind: "Secret", APIVersion: "v1", Namespace: t.claims.Namespace, Name: t.claims.SecretName,
		}, corev1.EventTypeWarning, api.ReasonSigningKeyRefused,
			"The API server refuses the token in this secret, signed by key %s: %s. No other tokens are written. Give the API server the key (--service-account-key-file), or the controllers one that it has", t.keyID, words)
	}
	return min(max(since, early), late)
}

// holder is the Secret of the canary as long as it holds it, so that a refusal is
// about the key, and nil when somebody changed it.
func (g *Check) holder(ctx context.Context, t *trial) (*corev1.Secret, error) {
	secret, err := g.cfg.Secrets.Secrets(t.claims.Namespace).Get(ctx, t.claims.SecretName, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil //nolint:nilnil // no Secret is an answer
	case err != nil:
		return nil, fmt.Errorf("get secret %s/%s: %w", t.claims.Namespace, t.claims.SecretName, err)
	}
	same := subtle.ConstantTimeCompare(secret.Data[corev1.ServiceAccountTokenKey], []byte(t.compact)) == 1
	if !same || secret.Labels[token.InvalidSinceLabel] != "" || secret.DeletionTimestamp != nil {
		return nil, nil //nolint:nilnil // another content is an answer
	}
	return secret, nil
}

// takeBack removes canaries of former keys from their Secrets, where the API server
// does not accept them.
func (g *Check) takeBack(ctx context.Context) (again time.Duration, err error) {
	g.mu.Lock()
	former := slices.Clone(g.former)
	g.mu.Unlock()
	var errs []error
	for _, t := range former {
		if !g.isWritten(t) {
			again = soon // the write is under way
			continue
		}
		if err := g.remove(ctx, t); err != nil {
			errs = append(errs, fmt.Errorf("take back the token of secret %s/%s: %w", t.claims.Namespace, t.claims.SecretName, err))
			continue
		}
		g.mu.Lock()
		g.former = slices.DeleteFunc(g.former, func(f *trial) bool { return f == t })
		g.mu.Unlock()
	}
	return again, errors.Join(errs...)
}

func (g *Check) isWritten(t *trial) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return t.written
}

func (g *Check) remove(ctx context.Context, t *trial) error {
	answer, err := g.reviewer.Review(ctx, t.compact)
	if err != nil || answer.Username == t.claims.Subject() {
		return err
	}
	secret, err := g.holder(ctx, t)
	if err != nil || secret == nil {
		return err
	}
	patch, err := kube.MergePatch(secret, map[string]any{"data": map[string]any{corev1.ServiceAccountTokenKey: nil}})
	if err != nil {
		return err
	}
	_, err = g.cfg.Secrets.Secrets(secret.Namespace).Patch(ctx, secret.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil // it went, and the token with it
	case err != nil:
		return kube.Redact(err)
	}
	klog.FromContext(ctx).V(2).Info("Took back a token that the API server refused", "secret", klog.KObj(secret), "keyID", t.keyID)
	return nil
}
