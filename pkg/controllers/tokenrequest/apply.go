package tokenrequest

import (
	"context"
	"encoding/json"
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
	// retryOutage is how long the wait between two tries may always be: also for a token
	// that has expired, or is about to, when the API server comes back.
	retryOutage = 30 * time.Second
	// slowest is how long an answer of the API server is waited for.
	slowest = 30 * time.Second
	// blip is how long a failure that may pass by itself is no event.
	blip = 10 * time.Second
	// contentRemoved stands for a Secret without a token in what may be contested.
	contentRemoved = "no token"
)

// renew asks for one token and writes it: two requests.
func (c *Controller) renew(ctx context.Context, s state, d decision) (time.Duration, error) {
	what := fillingOf(s, d.asked)
	what.content = [len(what.content)]byte{} // what there is does not say what is wanted
	content := what.hash(results{}) + " " + s.secret.Annotations[api.RotateAnnotation]
	if !d.aged {
		if wait := c.turn(ctx, s.secret, d, content); wait > 0 {
			return wait, workqueue.ErrRequeueLater
		}
	}
	requested := c.watch.Elapsed()
	compact, got, err := c.request(ctx, s, d.asked)
	if err != nil {
		return c.answer(ctx, s, fmt.Sprintf("request a token for service account %s", klog.KObj(s.account)), err)
	}
	patch, hash, err := c.fill(s, d.asked, compact, got)
	if err != nil {
		return c.answer(ctx, s, fmt.Sprintf("fill secret %s", klog.KObj(s.secret)), err)
	}
	if err := c.patch(ctx, s.secret, patch, func(n *note) { n.hash, n.requested = hash, requested }); err != nil {
		return c.answer(ctx, s, fmt.Sprintf("write secret %s", klog.KObj(s.secret)), err)
	}
	if !d.aged {
		c.truces.Record(contestedSecret(s.secret), content)
	}
	klog.FromContext(ctx).V(2).Info("Renewed the token of secret", "secret", klog.KObj(s.secret), "serviceAccount", klog.KObj(s.account),
		"reason", d.reason, "credentialID", got.ID, "lifetime", got.Validity.Lifetime())
	return 0, nil
}

// turn returns how long a write must wait that no token's age calls for.
func (c *Controller) turn(ctx context.Context, secret *cache.ManagedSecret, d decision, content string) time.Duration {
	if d.paced {
		if wait := c.slots.When(toolscache.MetaObjectToName(secret)); wait > 0 {
			return wait
		}
	}
	verdict := c.truces.Allow(contestedSecret(secret), content)
	writebackoff.Report(ctx, c.cfg.Recorder, objectReference(secret), verdict)
	return verdict.Wait
}

// request asks for a token of exactly this account for exactly this Secret.
func (c *Controller) request(ctx context.Context, s state, a asked) (string, token.BoundClaims, error) {
	limited, cancel := context.WithTimeout(ctx, slowest)
	defer cancel()
	answer, err := c.cfg.Client.ServiceAccounts(s.secret.Namespace).CreateToken(limited, a.account, &authenticationv1.TokenRequest{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.secret.Namespace, Name: a.account, UID: s.account.UID},
		Spec: authenticationv1.TokenRequestSpec{
			Audiences:         a.audiences,
			ExpirationSeconds: new(int64(a.lifetime / time.Second)),
			BoundObjectRef:    &authenticationv1.BoundObjectReference{Kind: "Secret", APIVersion: "v1", Name: s.secret.Name, UID: s.secret.UID},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return "", token.BoundClaims{}, err
	}
	found, err := readClaims(answer, s.secret.UID, s.account.UID)
	return answer.Status.Token, found, err
}

// fill makes the patch that writes a token, and the hash by which it will be known.
func (c *Controller) fill(s state, a asked, compact string, got token.BoundClaims) (patch []byte, hash string, err error) {
	ca := c.cfg.CA()
	data, err := a.render(compact, place{namespace: s.secret.Namespace, secret: s.secret.Name, ca: ca.PEM()})
	if err != nil {
		return nil, "", err
	}
	results := resultsOf(got)
	filled := fillingOf(s, a)
	filled.ca, filled.content = ca.Sum(), cache.ContentSum(data, a.keys())
	hash = filled.hash(results)
	changes := map[string]any{}
	for _, key := range s.secret.FilledKeys() {
		changes[key] = nil // of another format, unless it is filled again
	}
	for key, value := range data {
		changes[key] = value
	}
	patch, err = mergePatch(s.secret, map[string]any{
		api.IssuedAtAnnotation:     results.issuedAt,
		api.ExpiresAtAnnotation:    results.expiresAt,
		api.CredentialIDAnnotation: orNull(results.credentialID),
		api.RotatedAnnotation:      orNull(s.secret.Annotations[api.RotateAnnotation]),
		api.FilledForAnnotation:    a.account,
		api.FilledKeysAnnotation:   strings.Join(a.keys(), ","),
		api.FilledHashAnnotation:   hash,
	}, changes)
	return patch, hash, err
}

// orNull is nil, which removes an annotation, for a value that there is not.
func orNull(value string) any {
	if value == "" {
		return nil
	}
	return value
}

// remove takes a token away whose account is gone for sure: the cache may lag.
func (c *Controller) remove(ctx context.Context, s state, d decision) (time.Duration, error) {
	if wait := c.turn(ctx, s.secret, d, contentRemoved); wait > 0 {
		return wait, workqueue.ErrRequeueLater
	}
	err := c.lookUp(ctx, s.secret.Namespace, d.asked.account)
	switch {
	case err == nil:
		return lookAgain, nil // the cache will show it
	case !apierrors.IsNotFound(err):
		return c.answer(ctx, s, fmt.Sprintf("get service account %s/%s", s.secret.Namespace, d.asked.account), err)
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
	patch, err := mergePatch(s.secret, annotations, changes)
	if err != nil {
		return 0, err
	}
	if err := c.patch(ctx, s.secret, patch, func(n *note) { n.hash, n.requested = "", 0 }); err != nil {
		return c.answer(ctx, s, fmt.Sprintf("write secret %s", klog.KObj(s.secret)), err)
	}
	c.truces.Record(contestedSecret(s.secret), contentRemoved)
	c.cfg.Recorder.Eventf(objectReference(s.secret), corev1.EventTypeWarning, api.ReasonRemovedToken,
		"ServiceAccount %s is gone, and its token was removed from here: %s. Another one is written when there is such a ServiceAccount again",
		d.asked.account, strings.Join(s.secret.FilledKeys(), ", "))
	klog.FromContext(ctx).V(2).Info("Removed the token of secret", "secret", klog.KObj(s.secret), "reason", d.reason)
	return 0, nil
}

// lookUp asks the API server for a service account.
func (c *Controller) lookUp(ctx context.Context, namespace, name string) error {
	limited, cancel := context.WithTimeout(ctx, slowest)
	defer cancel()
	_, err := c.cfg.Client.ServiceAccounts(namespace).Get(limited, name, metav1.GetOptions{})
	return err
}

// patch sends a patch, and remembers what came of it.
func (c *Controller) patch(ctx context.Context, secret *cache.ManagedSecret, patch []byte, remember func(*note)) error {
	limited, cancel := context.WithTimeout(ctx, slowest)
	defer cancel()
	after, err := c.cfg.Client.Secrets(secret.Namespace).Patch(limited, secret.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	if err != nil {
		return err
	}
	now := c.cfg.Clock.Now()
	c.notes.update(secret.UID, func(n *note) {
		n.version, n.written, n.failing, n.conflicts = after.ResourceVersion, now, time.Time{}, 0
		remember(n)
	})
	return nil
}

// answer reads why nothing was written. A failure is retried for good, more often while a
// token is about to expire or the API server has not said no, and people are told when
// it does not pass.
func (c *Controller) answer(ctx context.Context, s state, doing string, err error) (time.Duration, error) {
	if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return lookAgain, nil
	}
	secret, now := s.secret, c.cfg.Clock.Now()
	var since time.Time
	conflict, conflicts := apierrors.IsConflict(err) || apierrors.IsNotFound(err), 0
	c.notes.update(secret.UID, func(n *note) {
		if n.failing.IsZero() {
			n.failing = now
		}
		since = n.failing
		if conflict {
			n.conflicts, n.conflicted, n.conflict = n.conflicts+1, now, secret.ResourceVersion
		}
		conflicts = n.conflicts
	})
	if conflict && conflicts == 1 {
		return lookAgain, workqueue.ErrRequeueLater // it changed, or went: most likely its event decides anew
	}
	refused := kube.IsPermanent(err)
	err = fmt.Errorf("%s: %w", doing, kube.Redact(err))
	if (refused || now.Sub(since) >= blip) && workqueue.Report(ctx) {
		c.cfg.Recorder.Eventf(objectReference(secret), corev1.EventTypeWarning, api.ReasonFailedTokenRenewal, "The token here cannot be renewed: %v", err)
	}
	if retry := retryAfter(left(s), refused); retry > 0 {
		c.queue.AddAfter(toolscache.MetaObjectToName(secret), retry)
	}
	return 0, err
}

// left is how long the token of a Secret is still good for, by the clock or by its age,
// whichever is less; zero or less: it has none that is.
func left(s state) time.Duration {
	term, ok := noted(s.secret).term()
	if !ok {
		return 0
	}
	left := term.Expires.Sub(s.now)
	if s.age != nil {
		left = min(left, term.Lifetime()-*s.age)
	}
	return left
}

// retryAfter is the longest wait before the next try, with that much of a lifetime left;
// zero: that of the loop will do. Between two outages there may be no more than a minute,
// and the API server counts few tries while it is away.
func retryAfter(left time.Duration, refused bool) time.Duration {
	switch {
	case !refused:
		return retryOutage
	case left > 0:
		return max(left/10, retryOutage)
	}
	return 0
}

func contestedSecret(secret *cache.ManagedSecret) contested {
	return contested{namespace: secret.Namespace, name: secret.Name, uid: string(secret.UID)}
}

// mergePatch makes a JSON merge patch (RFC 7386) that the API server refuses for
// another object than target, and for another version of it.
func mergePatch(target *cache.ManagedSecret, annotations, data map[string]any) ([]byte, error) {
	return json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": target.UID, "resourceVersion": target.ResourceVersion, "annotations": annotations},
		"data":     data,
	})
}
