package webhook

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"

	"github.com/sakeeper/sakeeper/pkg/testkit/leaks"
	"github.com/sakeeper/sakeeper/pkg/webhook/review"
)

func TestMain(m *testing.M) { leaks.Main(m) }

var errBoom = errors.New("boom")

const path = "/mutate/things"

// reviewBody is a complete review.
const reviewBody = `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u1",` +
	`"kind":{"group":"","version":"v1","kind":"Thing"},"resource":{"group":"","version":"v1","resource":"things"},` +
	`"name":"thing","namespace":"team","operation":"CREATE","userInfo":{"username":"jane"},"object":{"kind":"Thing","invented":1}}}`

// allow allows every request.
func allow(context.Context, *admissionv1.AdmissionRequest) (*admissionv1.AdmissionResponse, error) {
	return &admissionv1.AdmissionResponse{Allowed: true}, nil
}

func newServer(t testing.TB, handler review.Func) (*Server, *prometheus.Registry) {
	t.Helper()
	registry := prometheus.NewRegistry()
	s, err := New(Config{
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, errBoom },
		Handlers:       map[string]review.Func{path: handler},
		Registerer:     registry,
	})
	if err != nil {
		t.Fatal(err)
	}
	return s, registry
}

// bufferedLogger keeps what is logged, at any verbosity.
func bufferedLogger(t testing.TB) (logger klog.Logger, text func() string) {
	t.Helper()
	logger = ktesting.NewLogger(t, ktesting.NewConfig(ktesting.BufferLogs(true), ktesting.Verbosity(10)))
	buffer := logger.GetSink().(ktesting.Underlier).GetBuffer()
	return logger, buffer.String
}

func newRequest(body string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	return r
}

func serve(s *Server, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}
