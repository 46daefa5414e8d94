package authenticator_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/pkg/authenticator"
)

// unreachable is a cluster whose API server does not answer.
type unreachable struct{ state }

var errUnreachable = errors.New("connection refused")

func (unreachable) ServiceAccount(context.Context, string, string) (authenticator.Object, error) {
	return nil, errUnreachable
}

// panicking panics at the first read.
type panicking struct{ state }

func (panicking) ServiceAccount(context.Context, string, string) (authenticator.Object, error) {
	panic("secret")
}

func review(t testing.TB, body string, change ...func(*http.Request)) *http.Request {
	t.Helper()
	request := httptest.NewRequestWithContext(t.Context(), http.MethodPost, authenticator.ReviewPath, strings.NewReader(body))
	request.Header.Set("Content-Type", "application/json")
	for _, c := range change {
		c(request)
	}
	return request
}

func reviewOf(t testing.TB, compact string) string {
	t.Helper()
	body, err := json.Marshal(authenticationv1.TokenReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "authentication.k8s.io/v1", Kind: "TokenReview"}, Spec: authenticationv1.TokenReviewSpec{Token: compact, Audiences: []string{"api"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func TestReviews(t *testing.T) {
	good := reviewOf(t, boundToken(t, keySet("p256"), clusterIssuer, ""))
	cases := map[string]struct {
		in       *http.Request
		objects  authenticator.Objects
		wantCode int
		want     string // the body, or what it begins with
	}{
		"accepted":             {review(t, good), whole(), 200, `{"kind":"TokenReview","apiVersion":"authentication.k8s.io/v1","metadata":{},"spec":{},"status":{"authenticated":true,"user":{"username":"system:serviceaccount:team:robot","uid":"u-robot","groups":["system:serviceaccounts","system:serviceaccounts:team","system:authenticated"],"extra":{"authentication.kubernetes.io/credential-id":["JTI=id-1"]}},"audiences":["api"]}}`},
		"refused":              {review(t, reviewOf(t, "a.b.c")), whole(), 200, `{"kind":"TokenReview","apiVersion":"authentication.k8s.io/v1","metadata":{},"spec":{},"status":{"user":{},"error":"malformed token"}}`},
		"objects unreadable":   {review(t, good), unreachable{}, 503, "token could not be checked\n"},
		"a GET":                {review(t, good, func(r *http.Request) { r.Method = http.MethodGet }), whole(), 405, "the method must be POST\n"},
		"another content type": {review(t, good, func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }), whole(), 415, "the content type must be application/json\n"},
		"not JSON":             {review(t, "{"), whole(), 400, "the body is not a TokenReview in JSON\n"},
		"another kind":         {review(t, `{"apiVersion":"v1","kind":"Pod"}`), whole(), 400, "the body is not a TokenReview of authentication.k8s.io/v1\n"},
		"another version":      {review(t, strings.Replace(good, "/v1", "/v1beta1", 1)), whole(), 400, "the body is not a TokenReview of authentication.k8s.io/v1\n"},
		"no token":             {review(t, reviewOf(t, "")), whole(), 400, "spec.token is required\n"},
		"a token of 1 MB":      {review(t, reviewOf(t, strings.Repeat("A", 1<<20))), whole(), 413, "the body is longer than 262144 bytes\n"},
		"a panic":              {review(t, good), panicking{}, 500, "internal error\n"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			recorder := httptest.NewRecorder()
			newAuthenticator(t, config(tc.objects)).Handler().ServeHTTP(recorder, tc.in)
			if recorder.Code != tc.wantCode {
				t.Errorf("status %d, want %d", recorder.Code, tc.wantCode)
			}
			if diff := cmp.Diff(tc.want, recorder.Body.String()); diff != "" {
				t.Errorf("body (-want +got):\n%s", diff)
			}
		})
	}
}

func FuzzReviews(f *testing.F) {
	f.Add(reviewOf(f, boundToken(f, keySet("p256"), clusterIssuer, "")))
	f.Add("{}")
	handler := newAuthenticator(f, config(whole())).Handler()
	f.Fuzz(func(t *testing.T, body string) {
		recorder := httptest.NewRecorder()
		handler.ServeHTTP(recorder, review(t, body))
		if recorder.Code == http.StatusInternalServerError {
			t.Errorf("panicked: %s", recorder.Body)
		}
	})
}

// TestAuthenticatorsMayShareARegistry counts the reviews of both together.
func TestAuthenticatorsMayShareARegistry(t *testing.T) {
	registry := prometheus.NewRegistry()
	for range 2 {
		cfg := config(whole())
		cfg.Registerer = registry
		newAuthenticator(t, cfg).Handler().ServeHTTP(httptest.NewRecorder(), review(t, reviewOf(t, "a.b.c")))
	}
	want := `# HELP sakeeper_authenticator_reviews_total Token reviews, by result: accepted, refused, unavailable (the API server could not be asked), malformed.
# TYPE sakeeper_authenticator_reviews_total counter
sakeeper_authenticator_reviews_total{result="refused"} 2
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "sakeeper_authenticator_reviews_total"); err != nil {
		t.Error(err)
	}
}
