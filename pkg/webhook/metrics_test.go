package webhook

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/klog/v2"
)

// TestRequestsAreCounted by path and result, also those that no handler answers.
func TestRequestsAreCounted(t *testing.T) {
	cases := map[string]struct {
		in         func(*http.Request)
		inHandler  func() (*admissionv1.AdmissionResponse, error)
		wantCode   int
		wantPath   string
		wantResult string
	}{
		"allowed": {inHandler: func() (*admissionv1.AdmissionResponse, error) {
			return &admissionv1.AdmissionResponse{Allowed: true}, nil
		}, wantCode: 200, wantPath: path, wantResult: "allowed"},
		"denied":      {inHandler: func() (*admissionv1.AdmissionResponse, error) { return &admissionv1.AdmissionResponse{}, nil }, wantCode: 200, wantPath: path, wantResult: "denied"},
		"an error":    {inHandler: func() (*admissionv1.AdmissionResponse, error) { return nil, errBoom }, wantCode: 200, wantPath: path, wantResult: "error"},
		"no response": {inHandler: func() (*admissionv1.AdmissionResponse, error) { return nil, nil }, wantCode: 200, wantPath: path, wantResult: "error"},
		"a panic":     {inHandler: func() (*admissionv1.AdmissionResponse, error) { panic("secret") }, wantCode: 200, wantPath: path, wantResult: "panic"},
		"refused":     {in: func(r *http.Request) { r.Method = http.MethodGet }, wantCode: 405, wantPath: path, wantResult: "refused"},
		"another path": {
			in: func(r *http.Request) { r.URL.Path = "/" }, wantCode: 404, wantPath: "other", wantResult: "refused",
		},
		"a path below": {
			in: func(r *http.Request) { r.URL.Path = path + "/" }, wantCode: 404, wantPath: "other", wantResult: "refused",
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			s, registry := newServer(t, func(context.Context, *admissionv1.AdmissionRequest) (*admissionv1.AdmissionResponse, error) {
				return tc.inHandler()
			})
			logger, logs := bufferedLogger(t)
			r := newRequest(reviewBody)
			if tc.in != nil {
				tc.in(r)
			}
			w := serve(s, r.WithContext(klog.NewContext(t.Context(), logger)))
			if w.Code != tc.wantCode || w.Code == http.StatusNotFound && w.Body.String() != "there is no such path\n" {
				t.Errorf("got %d %s, want %d", w.Code, w.Body, tc.wantCode)
			}
			want := fmt.Sprintf(`# HELP sakeeper_webhook_requests_total Requests that the webhook has answered, by path and result (allowed, denied, error, panic, refused).
# TYPE sakeeper_webhook_requests_total counter
sakeeper_webhook_requests_total{path=%q,result=%q} 1
`, tc.wantPath, tc.wantResult)
			if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "sakeeper_webhook_requests_total"); err != nil {
				t.Error(err)
			}
			if n, err := testutil.GatherAndCount(registry, "sakeeper_webhook_request_duration_seconds"); n != 1 || err != nil {
				t.Errorf("%d durations, error %v", n, err)
			}
			if want := fmt.Sprintf("path=%q result=%q", tc.wantPath, tc.wantResult); strings.Count(logs(), want) != 1 || strings.Contains(logs(), "secret") {
				t.Errorf("log, want %s:\n%s", want, logs())
			}
		})
	}
}
