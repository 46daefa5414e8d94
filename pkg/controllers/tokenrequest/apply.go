package tokenrequest

import (
	"context"
	"fmt"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/internal/workqueue"
	"github.com/sakeeper/sakeeper/pkg/internal/writebackoff"
	"github.com/sakeeper/sakeeper/pkg/kube"
	"github.com/sakeeper/sakeeper/pkg/token"
)

const (
	// maxOutageDelay bounds the delay between two attempts during an outage, so that a token
	// that has expired, or soon will, is renewed when the API server is back.
	maxOutageDelay = 30 * time.Second
	// requestTimeout is the timeout of one request.
	requestTimeout = 30 * time.Second
	// warnAfter is how long a transient failure must last before it is an event.
	warnAfter = 10 * time.Second
	// contentNoToken is the content of a Secret without a token, for the write backoff.
	contentNoToken = "no token"
)

// renew requests one token and writes it: two requests.
func (c *Controller) renew(ctx context.Context, s state, d decision) (time.Duration, error) {
	input := hashInputOf(s, d.spec)
	input.content = [len(input.content)]byte{} // only what is wanted, not the present data
	content := input.hash(results{}) + " " + s.secret.Annotations[api.RotateAnnotation]
	if !d.dueByAge {
		if wait := c.writeDelay(ctx, s.secret, d, content); wait > 0 {
			return wait, workqueue.ErrRequeueLater
		}
	}
	requestedAt := c.stopwatch.Elapsed()
	compact, claims, err := c.request(ctx, s, d.spec)
	if err != nil {
		return c.handleAPIError(ctx, s, fmt.Sprintf("request a token for service account %s", klog.KObj(s.account)), err)
	}
	patch, hash, err := c.fillPatch(s, d, compact, claims)
	if err != nil {
		return c.handleAPIError(ctx, s, fmt.Sprintf("fill secret %s", klog.KObj(s.secret)), err)
	}
	if err := c.patch(ctx, s.secret, patch, renewed(hash, requestedAt)); err != nil {
		return c.handleAPIError(ctx, s, fmt.Sprintf("write secret %s", klog.KObj(s.secret)), err)
	}
	if !d.dueByAge {
		c.backoff.Record(objectKeyOf(s.secret), content)
	}
	klog.FromContext(ctx).V(2).Info("Renewed the token of secret", "secret", klog.KObj(s.secret), "serviceAccount", klog.KObj(s.account),
		"reason", d.reason, "credentialID", claims.ID, "lifetime", claims.Validity.Lifetime())
	return 0, nil
}

// writeDelay returns how long rate limit and write backoff delay a write. Renewals that are
// due by age do not need it.
func (c *Controller) writeDelay(ctx context.Context, secret *cache.ManagedSecret, d decision, content string) time.Duration {
	if d.rateLimited {
		if wait := c.limiter.When(toolscache.MetaObjectToName(secret)); wait > 0 {
			return wait
		}
	}
	allowed := c.backoff.Allow(objectKeyOf(secret), content)
	writebackoff.Report(ctx, c.cfg.Recorder, kube.Reference(kind, secret), allowed)
	return allowed.Wait
}

// request requests a token of the account, by UID, that is bound to the Secret, by UID.
func (c *Controller) request(ctx context.Context, s state, spec tokenSpec) (string, token.BoundClaims, error) {
	limited, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	response, err := c.cfg.Client.ServiceAccounts(s.secret.Namespace).CreateToken(limited, spec.account, &authenticationv1.TokenRequest{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.secret.Namespace, Name: spec.account, UID: s.account.UID},
		Spec: authenticationv1.TokenRequestSpec{
			Audiences:         spec.audiences,
			ExpirationSeconds: new(int64(spec.lifetime / time.Second)),
			BoundObjectRef:    &authenticationv1.BoundObjectReference{Kind: "Secret", APIVersion: "v1", Name: s.secret.Name, UID: s.secret.UID},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return "", token.BoundClaims{}, err
	}
	claims, err := readClaims(response, s.secret.UID, s.account.UID)
	return response.Status.Token, claims, err
}

// fillPatch returns the patch that writes a token, and its filled hash.
func (c *Controller) fillPatch(s state, d decision, compact string, claims token.BoundClaims) (patch []byte, hash string, err error) {
	ca, spec := c.cfg.CA(), d.spec
	data, err := spec.render(compact, target{namespace: s.secret.Namespace, secret: s.secret.Name, ca: ca.PEM()})
	if err != nil {
		return nil, "", err
	}
	results := resultsOf(claims)
	input := hashInputOf(s, spec)
	input.ca, input.content = ca.Sum(), cache.ContentSum(data, spec.keys())
	hash = input.hash(results)
	changes := map[string]any{}
	for _, key := range s.secret.FilledKeys() {
		changes[key] = nil // removed, unless the format has it
	}
	for key, value := range data {
		changes[key] = value
	}
	annotations := map[string]any{
		api.IssuedAtAnnotation:     results.issuedAt,
		api.ExpiresAtAnnotation:    results.expiresAt,
		api.CredentialIDAnnotation: orNull(results.credentialID),
		api.RotatedAnnotation:      orNull(s.secret.Annotations[api.RotateAnnotation]),
		api.FilledForAnnotation:    spec.account,
		api.FilledKeysAnnotation:   strings.Join(spec.keys(), ","),
		api.FilledHashAnnotation:   hash,
	}
	setProblem(annotations, s.secret, d.problem)
	patch, err = secretPatch(s.secret, annotations, changes)
	return patch, hash, err
}

// orNull returns nil, which removes an annotation, for an empty value.
func orNull(value string) any {
	if value == "" {
		return nil
	}
	return value
}

// remove removes a token whose account is gone, which a live GET confirms: the cache may lag.
func (c *Controller) remove(ctx context.Context, s state, d decision) (time.Duration, error) {
	if wait := c.writeDelay(ctx, s.secret, d, contentNoToken); wait > 0 {
		return wait, workqueue.ErrRequeueLater
	}
	err := c.getAccount(ctx, s.secret.Namespace, d.spec.account)
	switch {
	case err == nil:
		return requeueAfter, nil // the cache will catch up
	case !apierrors.IsNotFound(err):
		return c.handleAPIError(ctx, s, fmt.Sprintf("get service account %s/%s", s.secret.Namespace, d.spec.account), err)
	}
	changes, annotations := map[string]any{}, map[string]any{}
	for _, key := range s.secret.FilledKeys() {
		changes[key] = nil
	}
	for _, key := range []string{
		api.IssuedAtAnnotation, api.ExpiresAtAnnotation, api.CredentialIDAnnotation,
		api.RotatedAnnotation, api.FilledForAnnotation, api.FilledKeysAnnotation, api.FilledHashAnnotation,
	} {
		annotations[key] = nil
	}
	setProblem(annotations, s.secret, missingAccount(d.spec))
	patch, err := secretPatch(s.secret, annotations, changes)
	if err != nil {
		return 0, err
	}
	if err := c.patch(ctx, s.secret, patch, renewed("", 0)); err != nil {
		return c.handleAPIError(ctx, s, fmt.Sprintf("write secret %s", klog.KObj(s.secret)), err)
	}
	c.backoff.Record(objectKeyOf(s.secret), contentNoToken)
	c.cfg.Recorder.Eventf(kube.Reference(kind, s.secret), corev1.EventTypeWarning, api.ReasonRemovedToken,
		"ServiceAccount %s is gone, and its token was removed from this Secret: %s. Another token is written when a ServiceAccount of that name exists",
		d.spec.account, strings.Join(s.secret.FilledKeys(), ", "))
	klog.FromContext(ctx).V(2).Info("Removed the token of secret", "secret", klog.KObj(s.secret), "reason", d.reason)
	return 0, nil
}

// getAccount reads a ServiceAccount from the API server.
func (c *Controller) getAccount(ctx context.Context, namespace, name string) error {
	limited, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	_, err := c.cfg.Client.ServiceAccounts(namespace).Get(limited, name, metav1.GetOptions{})
	return err
}

// patch sends a patch, and updates the note of secret if it succeeds.
func (c *Controller) patch(ctx context.Context, secret *cache.ManagedSecret, patch []byte, remember func(*note)) error {
	limited, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	after, err := c.cfg.Client.Secrets(secret.Namespace).Patch(limited, secret.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	if err != nil {
		return err
	}
	now := c.cfg.Clock.Now()
	c.notes.update(secret.UID, func(n *note) {
		n.writtenVersion, n.writtenAt = after.ResourceVersion, now
		remember(n)
	})
	return nil
}

// handleAPIError handles a request that failed. Attempts never end. They are more frequent
// when the token expires soon or the error is not permanent. An error that is permanent or
// lasts is an event and the problem of the Secret.
func (c *Controller) handleAPIError(ctx context.Context, s state, doing string, err error) (time.Duration, error) {
	if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return requeueAfter, nil
	}
	secret, now := s.secret, c.cfg.Clock.Now()
	var since time.Time
	conflict, conflicts := apierrors.IsConflict(err) || apierrors.IsNotFound(err), 0
	c.notes.update(secret.UID, func(n *note) {
		if n.failingSince.IsZero() {
			n.failingSince = now
		}
		since = n.failingSince
		if conflict {
			n.conflicts, n.conflictAt, n.conflictVersion = n.conflicts+1, now, secret.ResourceVersion
		}
		conflicts = n.conflicts
	})
	if conflict && conflicts == 1 {
		return requeueAfter, workqueue.ErrRequeueLater // the Secret was changed or deleted: most likely its event queues it
	}
	permanent := kube.IsPermanent(err)
	err = fmt.Errorf("%s: %w", doing, kube.Redact(err))
	if permanent || now.Sub(since) >= warnAfter {
		c.reportFailure(ctx, s, failure(secret, doing, err), err)
	}
	if delay := maxRetryDelay(remaining(s), permanent); delay > 0 {
		c.queue.AddAfter(toolscache.MetaObjectToName(secret), delay)
	}
	return 0, err
}

// remaining returns how long the token of a Secret is still valid, by the clock or by its
// age, whichever is less. It is zero or less if there is no valid token.
func remaining(s state) time.Duration {
	term, ok := resultsOn(s.secret).term()
	if !ok {
		return 0
	}
	remaining := term.Expires.Sub(s.now)
	if s.age != nil {
		remaining = min(remaining, term.Lifetime()-*s.age)
	}
	return remaining
}

// maxRetryDelay bounds the delay before the next attempt for a token that is valid for the
// remaining time; zero: the work queue's delay is enough. There may be only a minute between
// two outages, and attempts during an outage do not load the API server.
func maxRetryDelay(remaining time.Duration, permanent bool) time.Duration {
	switch {
	case !permanent:
		return maxOutageDelay
	case remaining > 0:
		return max(remaining/10, maxOutageDelay)
	}
	return 0
}

func objectKeyOf(secret *cache.ManagedSecret) objectKey {
	return objectKey{namespace: secret.Namespace, name: secret.Name, uid: string(secret.UID)}
}

// secretPatch returns a JSON merge patch of annotations and data for this version of secret.
func secretPatch(secret *cache.ManagedSecret, annotations, data map[string]any) ([]byte, error) {
	return kube.MergePatch(secret, map[string]any{"metadata": map[string]any{"annotations": annotations}, "data": data})
}
