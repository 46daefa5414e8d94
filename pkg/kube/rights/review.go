package rights

import (
	"context"
	"slices"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"
)

// reviewer asks the API server about the user of the process.
type reviewer interface {
	allowed(ctx context.Context, right Right, target Target) (bool, error)
	username(ctx context.Context) (string, error)
}

type selfReviewer struct{ client kubernetes.Interface }

func (r selfReviewer) allowed(ctx context.Context, right Right, target Target) (bool, error) {
	review, err := r.client.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, &authorizationv1.SelfSubjectAccessReview{
		Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{
			Verb: right.Verb, Group: right.Group, Resource: right.Resource, Subresource: right.Subresource,
			Namespace: target.Namespace, Name: target.Name,
		}},
	}, metav1.CreateOptions{})
	if err != nil {
		return false, err
	}
	return review.Status.Allowed, nil
}

func (r selfReviewer) username(ctx context.Context) (string, error) {
	review, err := r.client.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	return review.Status.UserInfo.Username, nil
}

// review asks about the targets of a right, up to the first for which it is missing.
func (m *Monitor) review(ctx context.Context, right Right) {
	targets, expected := m.targets(right)
	if len(targets) > maxTargets {
		if allowed, err := m.allowed(ctx, right, Target{}); err == nil && allowed {
			m.remove(right, targets...)
			targets = nil
		}
	}
	for _, target := range targets {
		allowed, err := m.allowed(ctx, right, target)
		switch {
		case err == nil && allowed, apierrors.IsForbidden(err) && m.forgotten(right):
			m.remove(right, target)
		case err == nil, apierrors.IsForbidden(err):
			m.missing(ctx, right, target)
			return
		default:
			klog.FromContext(ctx).V(2).Info("Could not review a right", "right", right, "reason", err.Error())
			m.postpone(right)
			return
		}
	}
	m.present(ctx, right, expected)
}

func (m *Monitor) allowed(ctx context.Context, right Right, target Target) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return m.reviews.allowed(ctx, right, target)
}

// targets returns those to review now, the one for which the right is missing first. Expected is true
// if they include those of Expect.
func (m *Monitor) targets(right Right) (targets []Target, expected bool) {
	m.mu.Lock()
	s := m.states[right]
	where, missing, targets := s.where, s.target, slices.Clone(s.targets)
	m.mu.Unlock()
	targets = slices.DeleteFunc(targets, func(target Target) bool {
		if m.needed == nil || m.needed(right, target) {
			return false
		}
		m.remove(right, target)
		return true
	})
	if where != nil {
		targets = append(targets, where()...)
	}
	if i := slices.Index(targets, missing); i > 0 {
		targets[0], targets[i] = targets[i], targets[0]
	}
	return targets, where != nil
}

// forgotten returns true if the last refusal of the right was long ago.
func (m *Monitor) forgotten(right Right) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return time.Since(m.states[right].refused) > unreviewedFor
}

func (m *Monitor) remove(right Right, targets ...Target) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.states[right]
	s.targets = slices.DeleteFunc(s.targets, func(t Target) bool { return slices.Contains(targets, t) })
}

func (m *Monitor) postpone(right Right) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.states[right].due = time.Now().Add(maxDelay)
}

// missing notes that a right is missing for a target, and reports it when that is certain.
func (m *Monitor) missing(ctx context.Context, right Right, target Target) {
	text, ok := m.noteMissing(ctx, right, target)
	if !ok {
		return
	}
	klog.FromContext(ctx).Error(nil, "A right is missing", "right", right, "namespace", target.Namespace, "name", target.Name, "text", text)
	if m.report != nil {
		m.report(right, text) // may make requests, which m.mu would hold up
	}
}

// noteMissing returns the text to report, and false if there is nothing to report.
func (m *Monitor) noteMissing(ctx context.Context, right Right, target Target) (text string, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.states[right]
	s.missing, s.target = true, target
	s.due = time.Now().Add(min(firstDelay<<min(s.reviews, 10), maxDelay))
	s.reviews++
	if s.reviews < reportAfter || s.reported {
		return "", false
	}
	s.reported = true
	m.askUsername(ctx)
	return m.text(right, target), true
}

// askUsername finds the name of the user. m.mu is held, and released meanwhile.
func (m *Monitor) askUsername(ctx context.Context) {
	if m.username != "" {
		return
	}
	m.mu.Unlock()
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	username, err := m.reviews.username(limited)
	m.mu.Lock()
	if err == nil {
		m.username = username
	}
}

// present notes that a right is there for all targets of a review.
func (m *Monitor) present(ctx context.Context, right Right, expected bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.states[right]
	if s.reported {
		klog.FromContext(ctx).Info("A right is no longer missing", "right", right)
	}
	// A refusal for another reason is reviewed too, but not each of thousands.
	s.due = time.Now().Add(maxDelay)
	s.missing, s.reviews, s.reported = false, 0, false
	if expected {
		s.where = nil
	}
}
