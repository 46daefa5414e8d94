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
	"github.com/sakeeper/sakeeper/pkg/internal/apiresult"
	"github.com/sakeeper/sakeeper/pkg/kube"
	"github.com/sakeeper/sakeeper/pkg/token"
)

const (
	// requeueAfter is the delay where no event may come.
	requeueAfter = time.Second
	// maxConflictDelay bounds the delay between two references that conflict.
	maxConflictDelay = time.Minute
)

// generate creates a complete Secret, and adds a reference to it.
func (c *Controller) generate(ctx context.Context, account *corev1.ServiceAccount) (time.Duration, error) {
	if shown, err := c.cacheShowsAll(ctx, account); err != nil || !shown {
		return requeueAfter, err // the cache will catch up
	}
	key := toolscache.MetaObjectToName(account)
	p := c.plans.chooseName(key, account.UID)
	if p.rejected {
		if ok, err := c.dryRunReference(ctx, account, p.secretName); err != nil || !ok {
			return requeueAfter, err
		}
	}
	claims := token.LegacyClaims{
		Namespace: account.Namespace, SecretName: p.secretName,
		ServiceAccountName: account.Name, ServiceAccountUID: string(account.UID),
	}
	compact, wait, err := c.cfg.Tokens.Sign(ctx, claims)
	if err != nil {
		klog.FromContext(ctx).V(4).Info("Did not generate a token yet", "serviceAccount", klog.KObj(account), "reason", err.Error())
		return wait, fmt.Errorf("sign the token of secret %s/%s: %w", account.Namespace, p.secretName, err)
	}
	p = c.plans.update(key, account.UID, func(p *plan) { p.createDeadline = c.cfg.Clock.Now().Add(c.requestTimeout) })
	secret, err := c.cfg.Client.Secrets(account.Namespace).Create(ctx, c.secretFor(claims, compact), metav1.CreateOptions{})
	if err != nil {
		return c.handleCreateError(ctx, account, p, err)
	}
	created := secret.UID
	klog.FromContext(ctx).V(2).Info("Generated token secret", "secret", klog.KRef(account.Namespace, p.secretName), "serviceAccount", klog.KObj(account))
	if !c.plans.recordCreated(key, account.UID, p.secretName, created) {
		return requeueAfter, nil // its delete event came first
	}
	return c.addReference(ctx, account, decision{secret: p.secretName, secretUID: created, reason: "token secret was created for it"})
}

// secretFor returns a complete Secret with the token compact.
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

// handleCreateError handles the error of a create.
func (c *Controller) handleCreateError(ctx context.Context, account *corev1.ServiceAccount, p plan, err error) (time.Duration, error) {
	key := toolscache.MetaObjectToName(account)
	if apierrors.IsAlreadyExists(err) {
		p.createDeadline = time.Time{} // the answer is definite
		return c.checkCreate(ctx, key, p)
	}
	if kube.DefinitelyRejected(err) {
		c.plans.update(key, account.UID, func(p *plan) { p.createDeadline = time.Time{} })
	}
	if apierrors.IsConflict(err) {
		return requeueAfter, nil // over a quota that another request updated
	}
	return 0, c.write("create secret "+key.Namespace+"/"+p.secretName, account).Create(ctx, err)
}

// addReference adds a reference to the Secret of the decision to the version of account
// that the decision read. If there can be no reference, it deletes a Secret that no
// client can know of.
func (c *Controller) addReference(ctx context.Context, account *corev1.ServiceAccount, d decision) (time.Duration, error) {
	key := toolscache.MetaObjectToName(account)
	if c.plans.get(key).secretName == d.secret {
		c.plans.recordCreated(key, account.UID, d.secret, d.secretUID)
	}
	patched, err := c.patch(ctx, account, d.secret, metav1.PatchOptions{})
	if err == nil {
		c.plans.update(key, account.UID, func(p *plan) {
			p.maybeReferenced = p.maybeReferenced || p.secretName == d.secret
			p.accountVersion, p.conflicts, p.rejected = patched.ResourceVersion, 0, false
		})
		c.backoff.Record(objectKeyOf(account), content)
		klog.FromContext(ctx).V(2).Info("Added reference to token secret", "serviceAccount", klog.KObj(account), "secret", klog.KRef(key.Namespace, d.secret), "reason", d.reason)
		return 0, nil
	}
	return c.handleReferenceError(ctx, account, d, err)
}

// handleReferenceError handles the error of a reference, which may have been written.
func (c *Controller) handleReferenceError(ctx context.Context, account *corev1.ServiceAccount, d decision, err error) (time.Duration, error) {
	key := toolscache.MetaObjectToName(account)
	p := c.plans.update(key, account.UID, func(p *plan) {
		p.maybeReferenced = p.maybeReferenced || p.secretName == d.secret && !kube.DefinitelyRejected(err)
		p.rejected = p.rejected || kube.IsPermanent(err)
		if apierrors.IsConflict(err) {
			p.conflicts++
		}
	})
	own := p.secretName == d.secret && p.secretUID != ""
	switch {
	case apierrors.IsConflict(err):
		// The account changed, and its event queues it; a conflict without an event needs the delay.
		return min(requeueAfter<<min(p.conflicts-1, 6), maxConflictDelay), nil
	case apierrors.IsNotFound(err) && !own:
		return 0, nil
	case apierrors.IsNotFound(err):
		return 0, c.deleteSecret(ctx, key, d)
	}
	failure := c.write("patch service account "+key.String(), account).Failed(ctx, err)
	if kube.IsPermanent(err) && own && p.deletable() {
		failure = errors.Join(failure, c.deleteSecret(ctx, key, d))
	}
	return 0, failure
}

// dryRunReference returns true if the API server would accept a reference to a Secret of
// that name, so that no Secret is created that has to be deleted again.
func (c *Controller) dryRunReference(ctx context.Context, account *corev1.ServiceAccount, name string) (bool, error) {
	_, err := c.patch(ctx, account, name, metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}})
	switch {
	case err == nil, apierrors.IsBadRequest(err): // such as a webhook that does not support dry runs
		return true, nil
	case apierrors.IsConflict(err), apierrors.IsNotFound(err):
		return false, nil
	default:
		return false, fmt.Errorf("patch service account %s: %w", klog.KObj(account), err)
	}
}

// patch adds name to the references of exactly this version of account.
func (c *Controller) patch(ctx context.Context, account *corev1.ServiceAccount, name string, opts metav1.PatchOptions) (*corev1.ServiceAccount, error) {
	if c.cfg.ConfirmLive {
		live, err := c.cfg.Client.ServiceAccounts(account.Namespace).Get(ctx, account.Name, metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		if live.UID != account.UID {
			return nil, apierrors.NewConflict(corev1.Resource("serviceaccounts"), account.Name, errors.New("it was created again"))
		}
		account = live
	}
	body, err := kube.MergePatch(account, map[string]any{
		"secrets": append(slices.Clone(account.Secrets), corev1.ObjectReference{Name: name}),
	})
	if err != nil {
		return nil, err
	}
	return c.cfg.Client.ServiceAccounts(account.Namespace).Patch(ctx, account.Name, types.MergePatchType, body, opts)
}

// deleteSecret deletes a Secret that this process created and that has no reference.
func (c *Controller) deleteSecret(ctx context.Context, key toolscache.ObjectName, d decision) error {
	err := c.cfg.Client.Secrets(key.Namespace).Delete(ctx, d.secret, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &d.secretUID}})
	switch {
	case err == nil:
		klog.FromContext(ctx).V(2).Info("Deleted unneeded token secret", "secret", klog.KRef(key.Namespace, d.secret), "reason", d.reason)
	case apierrors.IsNotFound(err): // already deleted
	case apierrors.IsConflict(err):
		// Another Secret may have the name now. If not, this one still exists.
		found, errFind := c.find(ctx, key.Namespace, d.secret)
		if errFind != nil || found != nil && found.UID == d.secretUID {
			return errors.Join(fmt.Errorf("delete secret %s/%s: %w", key.Namespace, d.secret, kube.Redact(err)), errFind)
		}
	default:
		return fmt.Errorf("delete secret %s/%s: %w", key.Namespace, d.secret, kube.Redact(err))
	}
	c.plans.forgetSecret(key, d.secret)
	c.queue.Add(key) // the account may need another Secret
	return nil
}

// write describes a write for account, whose errors are events on the account.
func (c *Controller) write(doing string, account *corev1.ServiceAccount) apiresult.Write {
	return apiresult.Write{Doing: doing, Recorder: c.cfg.Recorder, Object: kube.Reference(kind, account), Reason: api.ReasonFailedGenerateToken}
}
