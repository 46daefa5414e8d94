package authenticator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"runtime/debug"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"

	"github.com/sakeeper/sakeeper/pkg/token"
)

// ReviewPath is where TokenReviews are answered.
const ReviewPath = "/authenticate"

// maxReview is far more than a review of the longest token that is looked at.
const maxReview = 256 << 10

// answerWithin bounds what a review may wait for.
const answerWithin = 10 * time.Second

// Reviews answers TokenReviews (authentication.k8s.io/v1) as kube-apiserver's webhook token
// authenticator sends them. It does not look at who asks: that is the server's part.
type Reviews struct {
	// Authenticator judges. Required.
	Authenticator *Authenticator
	// Metrics may be nil.
	Metrics *Metrics
}

// The results of reviews.
const (
	resultAccepted    = "accepted"
	resultRefused     = "refused"
	resultUnavailable = "unavailable"
	resultMalformed   = "malformed"
)

// ServeHTTP implements [http.Handler].
func (h Reviews) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start, result := time.Now(), resultMalformed
	defer func() {
		if p := recover(); p != nil {
			// The panic's value stays out: it may quote a token.
			klog.FromContext(r.Context()).Error(fmt.Errorf("%T", p), "Panicked in a token review", "stack", string(debug.Stack()))
			result = resultUnavailable
			http.Error(w, "internal error", http.StatusInternalServerError)
		}
		h.Metrics.observe(result, time.Since(start))
	}()
	review, code, err := readReview(w, r)
	if err != nil {
		http.Error(w, err.Error(), code)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), answerWithin)
	defer cancel()
	verdict, err := h.Authenticator.Authenticate(ctx, review.Spec.Token, review.Spec.Audiences)
	if errors.Is(err, ErrUnavailable) {
		// The API server asks again after this, and after no other answer.
		result = resultUnavailable
		klog.FromContext(ctx).Error(err, "Could not answer a token review")
		http.Error(w, ErrUnavailable.Error(), http.StatusServiceUnavailable)
		return
	}
	status := authenticationv1.TokenReviewStatus{Authenticated: true, User: verdict.User, Audiences: verdict.Audiences}
	result = resultAccepted
	if err != nil {
		result = resultRefused
		klog.FromContext(ctx).V(4).Info("Refused a token", "reason", err.Error(), "unverifiedKeyID", token.UnverifiedKeyID(review.Spec.Token))
		status = authenticationv1.TokenReviewStatus{Error: err.Error()}
	}
	answer, err := json.Marshal(authenticationv1.TokenReview{TypeMeta: review.TypeMeta, Status: status})
	if err != nil {
		panic("authenticator: internal error: " + err.Error()) // plain values
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(answer)
}

// readReview returns the HTTP status with an error. None quotes the body.
func readReview(w http.ResponseWriter, r *http.Request) (*authenticationv1.TokenReview, int, error) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return nil, http.StatusMethodNotAllowed, errors.New("a TokenReview comes by POST")
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return nil, http.StatusUnsupportedMediaType, errors.New("a TokenReview comes as application/json")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxReview))
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, http.StatusRequestEntityTooLarge, fmt.Errorf("the body is longer than %d bytes", tooLarge.Limit)
	} else if err != nil {
		return nil, http.StatusBadRequest, errors.New("the body ends too early")
	}
	var review authenticationv1.TokenReview
	if err := json.Unmarshal(body, &review); err != nil {
		return nil, http.StatusBadRequest, errors.New("the body is not a TokenReview in JSON")
	}
	want := metav1.TypeMeta{APIVersion: authenticationv1.SchemeGroupVersion.String(), Kind: "TokenReview"}
	switch {
	case review.TypeMeta != want:
		return nil, http.StatusBadRequest, fmt.Errorf("the body is not a TokenReview of %s", want.APIVersion)
	case review.Spec.Token == "":
		return nil, http.StatusBadRequest, errors.New("spec.token is required")
	}
	return &review, 0, nil
}
