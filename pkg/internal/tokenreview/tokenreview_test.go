package tokenreview

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	typedv1 "k8s.io/client-go/kubernetes/typed/authentication/v1"
	clienttesting "k8s.io/client-go/testing"
)

var errBoom = errors.New("boom")

func TestReview(t *testing.T) {
	yes := authenticationv1.TokenReviewStatus{Authenticated: true, User: authenticationv1.UserInfo{Username: "system:serviceaccount:team:robot"}}
	cases := map[string]struct {
		in         authenticationv1.TokenReviewStatus
		inErr      error
		want       Result
		wantErr    string
		wantResult string
	}{
		"yes":                             {in: yes, want: Result{Username: "system:serviceaccount:team:robot"}, wantResult: "accepted"},
		"no":                              {in: authenticationv1.TokenReviewStatus{Error: "expired"}, want: Result{Reason: "expired"}, wantResult: "refused"},
		"no, without a reason":            {want: Result{Reason: "no reason given"}, wantResult: "refused"},
		"no, with words that quote it":    {in: authenticationv1.TokenReviewStatus{Error: "bad token eyJhbGciOi"}, want: Result{Reason: "redacted, because it contains a token"}, wantResult: "refused"},
		"an error is neither yes nor no":  {inErr: errBoom, wantErr: "review token: boom", wantResult: "error"},
		"an error that quotes it":         {inErr: errors.New("policy: token eyJhbGciOi is not allowed"), wantErr: "review token: failed (the message is redacted, because it contains a token)", wantResult: "error"},
		"a user without yes is a refusal": {in: authenticationv1.TokenReviewStatus{User: yes.User}, want: Result{Reason: "no reason given"}, wantResult: "refused"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			client := &fake.Clientset{}
			var asked string
			client.AddReactor("create", "tokenreviews", func(action clienttesting.Action) (bool, runtime.Object, error) {
				review := action.(clienttesting.CreateActionImpl).Object.(*authenticationv1.TokenReview)
				asked = review.Spec.Token
				return true, &authenticationv1.TokenReview{Status: tc.in}, tc.inErr
			})
			registry := prometheus.NewRegistry()
			got, err := New(client.AuthenticationV1().TokenReviews(), registry).Review(t.Context(), "the token")
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("answer (-want +got):\n%s", diff)
			}
			if tc.wantErr == "" && err != nil || tc.wantErr != "" && (err == nil || err.Error() != tc.wantErr) {
				t.Errorf("error %v, want %q", err, tc.wantErr)
			}
			if asked != "the token" {
				t.Errorf("asked for %q", asked)
			}
			want := `
# HELP sakeeper_token_reviews_total Tokens that the API server was asked about, by result (accepted, refused, error).
# TYPE sakeeper_token_reviews_total counter
sakeeper_token_reviews_total{result="` + tc.wantResult + `"} 1
`
			if err := testutil.GatherAndCompare(registry, strings.NewReader(want)); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAnAnswerIsNotWaitedForWithoutEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		_, err := New(silent{}, nil).Review(t.Context(), "the token")
		if took := time.Since(began); !errors.Is(err, context.DeadlineExceeded) || took != requestTimeout {
			t.Errorf("got %v after %v", err, took)
		}
	})
}

// silent never answers.
type silent struct{ typedv1.TokenReviewInterface }

func (silent) Create(ctx context.Context, _ *authenticationv1.TokenReview, _ metav1.CreateOptions) (*authenticationv1.TokenReview, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}
