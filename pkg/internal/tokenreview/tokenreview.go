// Package tokenreview asks the API server whether it accepts a token.
//
// A review is a use of the token: for a legacy token the API server notes the date
// of today in the label kubernetes.io/legacy-token-last-used of its Secret. Ask only
// about tokens that were made just now or that should be dead.
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

// Answer is what the API server says of a token.
type Result struct {
	// Username is whom the token stands for; empty: it is refused.
	Username string
	// Words are the API server's reason for a refusal.
	Reason string
}

func newCounter(reg prometheus.Registerer) *prometheus.CounterVec {
	return metrics.Shared(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "sakeeper_token_reviews_total",
		Help: "Tokens that the API server was asked about, by purpose (canary, repair) and result (accepted, refused, error).",
	}, []string{"purpose", "result"}))
}

// Reviewer asks about tokens for one purpose. It is safe for concurrent use.
type Reviewer struct {
	client  typedv1.TokenReviewInterface
	purpose string
	reviews *prometheus.CounterVec
}

// New makes a reviewer; purpose is a label of its metric. A nil registerer exports none.
func New(client typedv1.TokenReviewInterface, purpose string, registerer prometheus.Registerer) *Reviewer {
	return &Reviewer{client: client, purpose: purpose, reviews: newCounter(registerer)}
}

// patience is how long an answer is waited for. A healthy API server takes
// milliseconds.
const requestTimeout = 10 * time.Second

// Ask asks for compact. An error means that there is no answer, neither yes nor no.
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
	words := review.Status.Error
	switch {
	case words == "":
		words = "no reason given"
	case token.ContainsToken(words):
		words = "words that are withheld because they quote a token"
	}
	return Result{Reason: words}, nil
}

func (r *Reviewer) count(result string) {
	r.reviews.WithLabelValues(r.purpose, result).Inc()
}
