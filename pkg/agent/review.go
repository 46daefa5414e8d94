package agent

import (
	"context"
	"os"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/wait"
	typedauthenticationv1 "k8s.io/client-go/kubernetes/typed/authentication/v1"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"github.com/sakeeper/sakeeper/pkg/kube"
)

const (
	// defaultReviewInterval is the longest time between two reviews of a token.
	defaultReviewInterval = 2 * time.Minute
	// reviewJitter is the share of the interval over which the reviews of many agents are spread.
	reviewJitter = 0.2
	// secondReviewAfter is the time between a refusal and the review that confirms it.
	secondReviewAfter = 5 * time.Second
	// refusalsToRenew is the number of refusals in a row after which a token is renewed.
	refusalsToRenew = 2
)

// Reviewer asks the API server whether it accepts a token. An error is no answer. It may be called
// concurrently.
type Reviewer func(ctx context.Context, compact string) (accepted bool, err error)

// NewReviewer returns a [Reviewer] that sends a SelfSubjectReview with the token as its only
// credentials (KEP-3325). Of config it uses everything but the credentials.
func NewReviewer(config *rest.Config) (Reviewer, error) {
	anonymous := rest.AnonymousClientConfig(config)
	anonymous.WrapTransport = config.WrapTransport
	client, err := typedauthenticationv1.NewForConfig(anonymous)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, compact string) (bool, error) {
		err := client.RESTClient().Post().Resource("selfsubjectreviews").SetHeader("Authorization", "Bearer "+compact).
			Body(&authenticationv1.SelfSubjectReview{}).Do(ctx).Error()
		switch {
		case err == nil, apierrors.IsForbidden(err): // authentication comes before authorization
			return true, nil
		case apierrors.IsUnauthorized(err):
			return false, nil
		}
		return false, kube.Redact(err)
	}, nil
}

// review is one review of the token in a file. A token that is refused the first time is for other
// audiences, and is not reviewed again.
func (a *Agent) review(ctx context.Context, file string) (again time.Duration, err error) {
	before, ok := a.state(file)
	if !ok || before.notReviewable {
		return 0, nil
	}
	interval := wait.Jitter(time.Duration(float64(a.cfg.ReviewInterval)*(1-reviewJitter)), reviewJitter/(1-reviewJitter))
	content, err := os.ReadFile(file)
	if err != nil {
		return interval, nil // a file that is gone is written again, and reviewed then
	}
	limited, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	accepted, err := a.cfg.Review(limited, string(content))
	if err != nil {
		klog.FromContext(ctx).V(2).Info("Got no answer to the review of a token", "file", file, "reason", err.Error())
		return interval, nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	current := a.states[file]
	if current.requestedAt != before.requestedAt {
		return 0, nil // the token was replaced, which has queued another review
	}
	switch {
	case accepted:
		current.accepted, current.refusals = true, 0
	case !current.accepted:
		current.notReviewable, interval = true, 0
	default:
		current.refusals++
	}
	a.states[file] = current
	switch current.refusals {
	case 0:
	case 1:
		interval = min(interval, secondReviewAfter)
	case refusalsToRenew:
		klog.FromContext(ctx).Info("The API server refused a token that it accepted before, it will be renewed", "file", file)
		a.files.Add(file)
	}
	return interval, nil
}
