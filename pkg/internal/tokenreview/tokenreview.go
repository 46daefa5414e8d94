// Package tokenreview asks the API server whether it accepts a token.
//
// A review is a use of the token: for a legacy token the API server writes today's date to
// the label kubernetes.io/legacy-token-last-used of its Secret. Review only tokens that are
// expected to be refused.
package tokenreview

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	typedv1 "k8s.io/client-go/kubernetes/typed/authentication/v1"

	"github.com/sakeeper/sakeeper/pkg/internal/metrics"
	"github.com/sakeeper/sakeeper/pkg/kube"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// Result is the API server's answer about a token.
type Result struct {
	// Username is the user that the token authenticates. It is empty if the API server
	// refused the token.
	Username string
	// Reason is the API server's reason for a refusal, without any token in it.
	Reason string
}

func newCounter(reg prometheus.Registerer) *prometheus.CounterVec {
	return metrics.Shared(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "sakeeper_token_reviews_total",
		Help: "Tokens that the API server was asked about, by result (accepted, refused, error).",
	}, []string{"result"}))
}

// Reviewer makes TokenReviews. It is safe for concurrent use.
type Reviewer struct {
	client  typedv1.TokenReviewInterface
	reviews *prometheus.CounterVec
}

// New returns a reviewer. If registerer is nil, its metric is not exported.
func New(client typedv1.TokenReviewInterface, registerer prometheus.Registerer) *Reviewer {
	return &Reviewer{client: client, reviews: newCounter(registerer)}
}

// requestTimeout bounds a review. A healthy API server answers within milliseconds.
const requestTimeout = 10 * time.Second

// Review asks the API server about a token in compact serialization. An error means that
// there is no answer: the token is neither accepted nor refused. It never holds the token.
func (r *Reviewer) Review(ctx context.Context, compact string) (Result, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	review, err := r.client.Create(ctx, &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: compact},
	}, metav1.CreateOptions{})
	if err != nil {
		r.count("error")
		return Result{}, fmt.Errorf("review token: %w", kube.Redact(err))
	}
	if review.Status.Authenticated {
		r.count("accepted")
		return Result{Username: review.Status.User.Username}, nil
	}
	r.count("refused")
	reason := review.Status.Error
	switch {
	case reason == "":
		reason = "no reason given"
	case token.ContainsToken(reason):
		reason = "redacted, because it contains a token"
	}
	return Result{Reason: reason}, nil
}

func (r *Reviewer) count(result string) {
	r.reviews.WithLabelValues(result).Inc()
}
