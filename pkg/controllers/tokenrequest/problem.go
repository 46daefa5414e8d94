package tokenrequest

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/klog/v2"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/internal/apiresult"
	"github.com/sakeeper/sakeeper/pkg/internal/workqueue"
	"github.com/sakeeper/sakeeper/pkg/kube"
	"github.com/sakeeper/sakeeper/pkg/kube/rights"
)

// problem is what is wrong with a Secret: the reason of a Warning event, and a text for the event
// and for [api.ProblemAnnotation]. The text is the same at each attempt, so that it is written once.
type problem struct{ reason, text string }

// failure returns the problem of a Secret for which a request failed. Its text does not quote err:
// the messages of the API server may differ at each attempt, as that of an exceeded quota does.
func failure(secret *cache.ManagedSecret, doing string, err error) problem {
	cause := "no success so far, and it is tried again"
	if kube.IsPermanent(err) {
		cause = "the API server answers " + string(apierrors.ReasonForError(err))
	}
	return problem{api.ReasonFailedTokenRenewal, fmt.Sprintf("%s: %s: %s", failureOf(secret), doing, cause)}
}

// failureOf returns what failed for secret.
func failureOf(secret *cache.ManagedSecret) string {
	if len(secret.FilledKeys()) == 0 {
		return "This Secret cannot be given a token" // there is none that could be renewed
	}
	return "The token in this Secret cannot be renewed"
}

// recordProblem records the problem of d as an event, once until it changes. There is no event
// about what the annotation says already: another process has recorded it.
func (c *Controller) recordProblem(ctx context.Context, secret *cache.ManagedSecret, d decision) {
	before, current := problem{}, d.problem
	c.notes.update(secret.UID, func(n *note) {
		before, n.problem = n.problem, current
		if d.action == none || d.action == refuse {
			n.failingSince = time.Time{} // there is no renewal that could fail
		}
	})
	if current == before || current == (problem{}) || current.text == secret.Annotations[api.ProblemAnnotation] {
		return
	}
	klog.FromContext(ctx).V(2).Info("Found a problem with secret", "secret", klog.KObj(secret), "action", d.action, "reason", current.reason, "text", current.text)
	c.cfg.Recorder.Event(kube.Reference(kind, secret), corev1.EventTypeWarning, current.reason, current.text)
}

// reportFailure records a failure as an event that quotes err, once until a request succeeds, and
// writes it to the annotation, unless err says that the cached Secret is not the current one.
func (c *Controller) reportFailure(ctx context.Context, s state, p problem, err error) {
	annotated := s.secret.Annotations[api.ProblemAnnotation] == p.text
	if workqueue.Report(ctx) && !annotated {
		c.cfg.Recorder.Eventf(kube.Reference(kind, s.secret), corev1.EventTypeWarning, p.reason, "%s: %v", failureOf(s.secret), err)
	}
	if annotated || apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return
	}
	// The caller returns the error of the request, and the next attempt is the next one to annotate.
	if _, err := c.annotate(ctx, s, decision{problem: p}); err != nil {
		klog.FromContext(ctx).V(4).Info("The problem was not written to secret", "secret", klog.KObj(s.secret), "err", err)
	}
}

// annotate writes the problem of d to the annotation, or removes the annotation if there is none:
// one request. It returns when to decide again.
func (c *Controller) annotate(ctx context.Context, s state, d decision) (time.Duration, error) {
	secret, text := s.secret, d.problem.text
	if text != "" && c.notes.get(secret.UID).unwritable == text {
		return d.wait, nil
	}
	content := "problem " + text
	// Many Secrets may have the same problem, such as that of their namespace.
	if wait := c.writeDelay(ctx, secret, decision{rateLimited: true}, content); wait > 0 {
		if d.wait > 0 {
			wait = min(wait, d.wait)
		}
		return wait, workqueue.ErrRequeueLater
	}
	annotations := map[string]any{}
	setProblem(annotations, secret, d.problem)
	patch, err := kube.MergePatch(secret, map[string]any{"metadata": map[string]any{"annotations": annotations}})
	if err != nil {
		return 0, err
	}
	write := ctx
	if d.problem.reason == api.ReasonTokenNotServed {
		write = rights.Optional(ctx) // the rights of this controller may be bound in served namespaces only
	}
	err = c.patch(write, secret, patch, func(n *note) { n.unwritable = "" })
	switch {
	case err == nil:
		c.backoff.Record(objectKeyOf(secret), content)
		return d.wait, nil
	case kube.IsPermanent(err):
		// As where this controller has no rights in a namespace that it does not serve. The event
		// is there, and the same text is not tried again.
		c.notes.update(secret.UID, func(n *note) { n.unwritable = text })
		klog.FromContext(ctx).V(2).Info("The API server refuses the problem of secret", "secret", klog.KObj(secret), "err", kube.Redact(err))
		return d.wait, nil
	}
	result := apiresult.Write{
		Doing: fmt.Sprintf("write the problem of secret %s", klog.KObj(secret)), Recorder: c.cfg.Recorder,
		Object: kube.Reference(kind, secret), Reason: api.ReasonFailedTokenRenewal,
	}
	wait, err := result.Change(ctx, err)
	if wait == 0 || d.wait > 0 && d.wait < wait {
		wait = d.wait
	}
	return wait, err
}

// setProblem adds the change of the annotation about problems to annotations, if there is one.
func setProblem(annotations map[string]any, secret *cache.ManagedSecret, p problem) {
	if secret.Annotations[api.ProblemAnnotation] != p.text {
		annotations[api.ProblemAnnotation] = orNull(p.text)
	}
}
