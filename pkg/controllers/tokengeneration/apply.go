package tokengeneration

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/internal/workqueue"
	"github.com/sakeeper/sakeeper/pkg/kube"
	"github.com/sakeeper/sakeeper/pkg/signingkey"
	"github.com/sakeeper/sakeeper/pkg/token"
)

const (
	// soon is when something is asked again that no event tells of.
	soon = time.Second
	// late bounds the time between two references that conflict.
	late = time.Minute
)

// generate makes a Secret that is complete, and refers to it.
func (c *Controller) generate(ctx context.Context, account *corev1.ServiceAccount) (time.Duration, error) {
	if shown, err := c.survey(ctx, account); err != nil || !shown {
		return soon, err // the cache will show it
	}
	key := toolscache.MetaObjectToName(account)
	p := c.plans.choose(key, account.UID)
	if p.refused {
		if may, err := c.rehearse(ctx, account, p.name); err != nil || !may {
			return soon, err
		}
	}
	claims := token.LegacyClaims{
		Namespace: account.Namespace, SecretName: p.name,
		ServiceAccountName: account.Name, ServiceAccountUID: string(account.UID),
	}
	var made types.UID
	err := c.cfg.Tokens.Write(ctx, claims, func() { c.queue.Add(key) }, func(ctx context.Context, compact string) error {
		p = c.plans.update(key, account.UID, func(p *plan) { p.doubt = c.cfg.Clock.Now().Add(c.cfg.Underway) })
		secret, err := c.cfg.Client.Secrets(account.Namespace).Create(ctx, c.secretFor(claims, compact), metav1.CreateOptions{})
		if err == nil {
			made = secret.UID
		}
		return err
	})
	if err != nil {
		return c.notGenerated(ctx, account, p, err)
	}
	klog.FromContext(ctx).V(2).Info("Generated token secret", "secret", klog.KRef(account.Namespace, p.name), "serviceAccount", klog.KObj(account))
	if !c.plans.made(key, account.UID, p.name, made) {
		return soon, nil // it was seen going already
	}
	return c.refer(ctx, account, decision{secret: p.name, uid: made, reason: "token secret was made for it"})
}

// secretFor is the Secret that holds compact: nothing needs to be added to it.
func (c *Controller) secretFor(claims token.LegacyClaims, compact string) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: claims.Namespace, Name: claims.SecretName,
			Annotations: map[string]string{
				corev1.ServiceAccountNameKey: claims.ServiceAccountName,
				corev1.ServiceAccountUIDKey:  claims.ServiceAccountUID,
			},
		},
		Type: corev1.SecretTypeServiceAccountToken,
		Data: map[string][]byte{
			corev1.ServiceAccountTokenKey:     []byte(compact),
			corev1.ServiceAccountRootCAKey:    c.cfg.CA().PEM(),
			corev1.ServiceAccountNamespaceKey: []byte(claims.Namespace),
		},
	}
}

// notGenerated reads why there is no Secret.
func (c *Controller) notGenerated(ctx context.Context, account *corev1.ServiceAccount, p plan, err error) (time.Duration, error) {
	key := toolscache.MetaObjectToName(account)
	if apierrors.IsAlreadyExists(err) {
		p.doubt = time.Time{} // what there is, is there
		return c.probe(ctx, key, p)
	}
	if kube.DefinitelyRejected(err) {
		c.plans.update(key, account.UID, func(p *plan) { p.doubt = time.Time{} })
	}
	switch {
	case errors.Is(err, signingkey.ErrWaiting):
		klog.FromContext(ctx).V(4).Info("Put off a token", "serviceAccount", klog.KObj(account), "reason", err.Error())
		return 0, err // it will be woken
	case apierrors.IsNotFound(err), apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return 0, nil // the namespace went, or is going: its next life begins with events
	case apierrors.IsConflict(err):
		return soon, nil // over a quota that others use too
	}
	return 0, c.report(ctx, account, kube.IsPermanent(err), fmt.Errorf("create secret %s/%s: %w", key.Namespace, p.name, kube.Redact(err)))
}

// refer writes a reference to the Secret of the decision, at the version of account
// that it was taken on. A Secret that nobody knows of goes again where there can be no
// reference.
func (c *Controller) refer(ctx context.Context, account *corev1.ServiceAccount, d decision) (time.Duration, error) {
	key := toolscache.MetaObjectToName(account)
	if c.plans.of(key).name == d.secret {
		c.plans.made(key, account.UID, d.secret, d.uid)
	}
	patched, err := c.patch(ctx, account, d.secret, metav1.PatchOptions{})
	if err == nil {
		c.plans.update(key, account.UID, func(p *plan) {
			p.exposed = p.exposed || p.name == d.secret
			p.version, p.conflicts, p.refused = patched.ResourceVersion, 0, false
		})
		c.truces.Record(contestedAccount(account), content)
		klog.FromContext(ctx).V(2).Info("Referred to token secret", "serviceAccount", klog.KObj(account), "secret", klog.KRef(key.Namespace, d.secret), "reason", d.reason)
		return 0, nil
	}
	return c.notReferred(ctx, account, d, err)
}

// notReferred reads why there is no reference, or no answer.
func (c *Controller) notReferred(ctx context.Context, account *corev1.ServiceAccount, d decision, err error) (time.Duration, error) {
	key := toolscache.MetaObjectToName(account)
	p := c.plans.update(key, account.UID, func(p *plan) {
		p.exposed = p.exposed || p.name == d.secret && !kube.DefinitelyRejected(err)
		p.refused = p.refused || kube.IsPermanent(err)
		if apierrors.IsConflict(err) {
			p.conflicts++
		}
	})
	mine := p.name == d.secret && p.secret != ""
	switch {
	case apierrors.IsConflict(err):
		// The account changed. Its event decides anew, and this does where there is none.
		return min(soon<<min(p.conflicts-1, 6), late), nil
	case apierrors.IsNotFound(err) && !mine:
		return 0, nil
	case apierrors.IsNotFound(err):
		return 0, c.discard(ctx, key, d)
	}
	failure := c.report(ctx, account, kube.IsPermanent(err), fmt.Errorf("patch service account %s: %w", key, err))
	if kube.IsPermanent(err) && mine && p.withdrawable() {
		failure = errors.Join(failure, c.discard(ctx, key, d))
	}
	return 0, failure
}

// rehearse tells whether the API server would take a reference to a Secret of that
// name, so that none is made that has to go again.
func (c *Controller) rehearse(ctx context.Context, account *corev1.ServiceAccount, name string) (bool, error) {
	_, err := c.patch(ctx, account, name, metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}})
	switch {
	case err == nil, apierrors.IsBadRequest(err): // such as a webhook that knows no rehearsal
		return true, nil
	case apierrors.IsConflict(err), apierrors.IsNotFound(err):
		return false, nil
	default:
		return false, fmt.Errorf("patch service account %s: %w", klog.KObj(account), err)
	}
}

// patch adds one name to the references of exactly this version of account.
func (c *Controller) patch(ctx context.Context, account *corev1.ServiceAccount, name string, opts metav1.PatchOptions) (*corev1.ServiceAccount, error) {
	body, err := kube.MergePatch(account, map[string]any{
		"secrets": append(slices.Clone(account.Secrets), corev1.ObjectReference{Name: name}),
	})
	if err != nil {
		return nil, err
	}
	return c.cfg.Client.ServiceAccounts(account.Namespace).Patch(ctx, account.Name, types.MergePatchType, body, opts)
}

// discard deletes a Secret that was made here and that nobody refers to.
func (c *Controller) discard(ctx context.Context, key toolscache.ObjectName, d decision) error {
	err := c.cfg.Client.Secrets(key.Namespace).Delete(ctx, d.secret, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &d.uid}})
	switch {
	case err == nil:
		klog.FromContext(ctx).V(2).Info("Deleted a token secret that was made for nothing", "secret", klog.KRef(key.Namespace, d.secret), "reason", d.reason)
	case apierrors.IsNotFound(err): // it went already
	case apierrors.IsConflict(err):
		// Another one may have its name now. If not, this one is still there.
		found, errFind := c.find(ctx, key.Namespace, d.secret)
		if errFind != nil || found != nil && found.UID == d.uid {
			return errors.Join(fmt.Errorf("delete secret %s/%s: %w", key.Namespace, d.secret, kube.Redact(err)), errFind)
		}
	default:
		return fmt.Errorf("delete secret %s/%s: %w", key.Namespace, d.secret, kube.Redact(err))
	}
	c.plans.forget(key, d.secret)
	c.queue.Add(key) // for what else there is to do
	return nil
}

// report tells people of a refusal, about which they can do something, once, and
// returns err.
func (c *Controller) report(ctx context.Context, account *corev1.ServiceAccount, refusal bool, err error) error {
	if refusal && workqueue.Report(ctx) {
		c.cfg.Recorder.Eventf(objectReference(account), corev1.EventTypeWarning, api.ReasonFailedGenerateToken, "The API server refuses to %v", err)
	}
	return err
}
