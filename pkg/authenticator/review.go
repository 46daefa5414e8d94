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

// ReviewPath is the path of the handler in sakeeper authenticator.
const ReviewPath = "/authenticate"

// maxReview is far more than a review of the longest token that is parsed.
const maxReview = 256 << 10

// reviewTimeout bounds the reads of one review.
const reviewTimeout = 10 * time.Second

// The results of reviews.
const (
	resultAccepted    = "accepted"
	resultRefused     = "refused"
	resultUnavailable = "unavailable"
	resultMalformed   = "malformed"
)

// Handler answers TokenReviews (authentication.k8s.io/v1) as the webhook token authenticator of
// kube-apiserver sends them, on any path. It does not check who the client is: that is the task
// of the server around it.
func (a *Authenticator) Handler() http.Handler { return http.HandlerFunc(a.serveReview) }

func (a *Authenticator) serveReview(w http.ResponseWriter, r *http.Request) {
	start, result := time.Now(), resultMalformed
	defer func() {
		if p := recover(); p != nil {
			// The value of the panic may quote a token.
			klog.FromContext(r.Context()).Error(fmt.Errorf("%T", p), "Panicked in a token review", "stack", string(debug.Stack()))
			result = resultUnavailable
			http.Error(w, "internal error", http.StatusInternalServerError)
		}
		a.metrics.observe(result, time.Since(start))
	}()
	review, code, err := readReview(w, r)
	if err != nil {
		http.Error(w, err.Error(), code)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), reviewTimeout)
	defer cancel()
	response, err := a.Authenticate(ctx, review.Spec.Token, review.Spec.Audiences)
	if errors.Is(err, ErrUnavailable) {
		// The API server repeats the review after this status, and after no other.
		result = resultUnavailable
		klog.FromContext(ctx).Error(err, "Failed to check a token")
		http.Error(w, ErrUnavailable.Error(), http.StatusServiceUnavailable)
		return
	}
	status := authenticationv1.TokenReviewStatus{Authenticated: true, User: response.User, Audiences: response.Audiences}
	result = resultAccepted
	if err != nil {
		result = resultRefused
		klog.FromContext(ctx).V(4).Info("Refused a token", "reason", err.Error(), "unverifiedKeyID", token.UnverifiedKeyID(review.Spec.Token))
		status = authenticationv1.TokenReviewStatus{Error: err.Error()}
	}
	answer, err := json.Marshal(authenticationv1.TokenReview{TypeMeta: review.TypeMeta, Status: status})
	if err != nil {
		panic("authenticator: internal error: " + err.Error()) // strings can be encoded
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(answer)
}

// readReview returns an HTTP status with each error. No error quotes the body.
func readReview(w http.ResponseWriter, r *http.Request) (*authenticationv1.TokenReview, int, error) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return nil, http.StatusMethodNotAllowed, errors.New("the method must be POST")
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return nil, http.StatusUnsupportedMediaType, errors.New("the content type must be application/json")
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
