package e2e

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sakeeper/sakeeper/pkg/servingcert/pki"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

// webhookUser is the user name of sakeeper webhook.
const webhookUser = "system:serviceaccount:" + controlplane.Namespace + ":" + controlplane.WebhookAccount

func poolOf(bundle []byte) (*x509.CertPool, error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(bundle) {
		return nil, errors.New("the bundle has no certificate")
	}
	return roots, nil
}

func contains(text, part string) error {
	if !strings.Contains(text, part) {
		return fmt.Errorf("%q is not there", part)
	}
	return nil
}

// caller returns a client that calls webhooks as the API server does.
func caller(t *testing.T, bundle []byte) *http.Client {
	t.Helper()
	roots, err := poolOf(bundle)
	must(t, err)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}
}

func do(t *testing.T, client *http.Client, method, url string, body []byte) (code int, answer string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(body))
	must(t, err)
	request.Header.Set("Content-Type", "application/json")
	response, err := client.Do(request)
	must(t, err)
	defer func() { _ = response.Body.Close() }()
	data, err := io.ReadAll(response.Body)
	must(t, err)
	return response.StatusCode, string(data)
}

// review is the AdmissionReview for the creation of pod in namespace.
func review(t *testing.T, namespace string, pod *corev1.Pod) *admissionv1.AdmissionReview {
	t.Helper()
	pod = pod.DeepCopy()
	pod.TypeMeta, pod.Namespace = metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}, namespace
	raw, err := json.Marshal(pod)
	must(t, err)
	return &admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"},
		Request: &admissionv1.AdmissionRequest{
			UID: "705ab4f5-6393-11e8-b7cc-42010a800002", Operation: admissionv1.Create,
			Kind:     metav1.GroupVersionKind{Version: "v1", Kind: "Pod"},
			Resource: metav1.GroupVersionResource{Version: "v1", Resource: "pods"},
			Name:     pod.Name, Namespace: namespace, Object: runtime.RawExtension{Raw: raw},
		},
	}
}

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	must(t, err)
	return data
}

func mustAnswer(t *testing.T, body string) *admissionv1.AdmissionResponse {
	t.Helper()
	answer := admissionv1.AdmissionReview{}
	must(t, json.Unmarshal([]byte(body), &answer))
	if answer.Response == nil {
		t.Fatalf("no answer to a review: %s", body)
	}
	return answer.Response
}

// badRequest is a request that no API server sends.
type badRequest struct {
	method, path string // empty: POST, /mutate/pods
	body         []byte
	// wantCode is the HTTP status. With 200 the response is a refusal with wantStatus.
	wantCode   int
	wantStatus int32
	want       string
}

// unspeakable is in every bad request. It must be neither in responses nor in logs.
const unspeakable = "hunter2-hunter2"

func badRequests(t *testing.T, namespace string) map[string]badRequest {
	t.Helper()
	secretive := pod("bad")
	secretive.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "PASSWORD", Value: unspeakable}}
	good := mustJSON(t, review(t, namespace, secretive))
	with := func(change func(*admissionv1.AdmissionReview)) []byte {
		changed := review(t, namespace, secretive)
		change(changed)
		return mustJSON(t, changed)
	}
	return map[string]badRequest{
		"not JSON":                {body: []byte(unspeakable), wantCode: 400, want: "not an AdmissionReview"},
		"JSON that breaks off":    {body: good[:len(good)/2], wantCode: 400, want: "not an AdmissionReview"},
		"nothing":                 {wantCode: 400, want: "empty"},
		"10 MB":                   {body: bytes.Repeat([]byte("{\"a\":"), 2_000_000), wantCode: 413, want: "larger than"},
		"GET":                     {method: http.MethodGet, wantCode: 405, want: "POST"},
		"a path that is not ours": {path: "/mutate/deployments", body: good, wantCode: 404, want: "no such path"},
		"the root":                {path: "/", body: good, wantCode: 404, want: "no such path"},
		"another kind of review": {body: with(func(r *admissionv1.AdmissionReview) { r.Kind = "TokenReview" }),
			wantCode: 400, want: "must be of kind AdmissionReview"},
		"another version": {body: with(func(r *admissionv1.AdmissionReview) { r.APIVersion = "admission.k8s.io/v1beta1" }),
			wantCode: 400, want: "must be of kind AdmissionReview"},
		"no request": {body: with(func(r *admissionv1.AdmissionReview) { r.Request = nil }), wantCode: 400, want: "no request"},
		"no uid":     {body: with(func(r *admissionv1.AdmissionReview) { r.Request.UID = "" }), wantCode: 400, want: "no uid"},
		"another resource": {body: with(func(r *admissionv1.AdmissionReview) { r.Request.Resource.Resource = "replicationcontrollers" }),
			wantCode: 200, wantStatus: 400, want: "this webhook is for pods"},
		"another subresource": {path: "/validate/pods", body: with(func(r *admissionv1.AdmissionReview) { r.Request.SubResource = "exec" }),
			wantCode: 200, wantStatus: 400, want: "no rule"},
		"another namespace than the pod's": {path: "/validate/pods", body: with(func(r *admissionv1.AdmissionReview) { r.Request.Namespace = "elsewhere" }),
			wantCode: 200, wantStatus: 400, want: `the request in "elsewhere"`},
		"no pod": {path: "/validate/pods", body: with(func(r *admissionv1.AdmissionReview) { r.Request.Object = runtime.RawExtension{} }),
			wantCode: 200, wantStatus: 400, want: "no object"},
	}
}

func (r badRequest) url(w controlplane.Webhook) string {
	if r.path == "" {
		return "https://" + w.Address + "/mutate/pods"
	}
	return "https://" + w.Address + r.path
}

// label is the result label of the metric.
func (r badRequest) label() string {
	path, result := "other", "refused"
	switch r.path {
	case "":
		path = "/mutate/pods"
	case "/validate/pods":
		path = r.path
	default:
	}
	if r.wantCode == http.StatusOK {
		result = "denied"
	}
	return fmt.Sprintf("path=%q,result=%q", path, result)
}

func (r badRequest) expectRefused(t *testing.T, client *http.Client, w controlplane.Webhook) {
	t.Helper()
	method := r.method
	if method == "" {
		method = http.MethodPost
	}
	code, body := do(t, client, method, r.url(w), r.body)
	if code != r.wantCode || strings.Contains(body, unspeakable) {
		t.Errorf("answered %d: %.300s; want %d", code, body, r.wantCode)
		return
	}
	text := body
	if code == http.StatusOK {
		answer := mustAnswer(t, body)
		if answer.Allowed || answer.Result == nil || answer.Result.Code != r.wantStatus {
			t.Fatalf("the review is answered by %s", body)
		}
		text = answer.Result.Message
	}
	if err := contains(text, r.want); err != nil {
		t.Errorf("%v in %q", err, text)
	}
}

// TestBadRequestsAreRefusedAndCounted needs no registration: only the test calls this webhook.
func TestBadRequestsAreRefusedAndCounted(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t, shared.client)
	w, err := controlplane.NewWebhook()
	must(t, err)
	kubeconfig, err := shared.cp.Kubeconfig("bad-requests.kubeconfig", shared.cp.Admin)
	must(t, err)
	ca := mustAuthority(t, time.Now())
	certFile, keyFile := mustWritePair(t, t.TempDir(), mustServe(t, ca, time.Now()))
	host, port, _ := strings.Cut(w.Address, ":")
	s := startReadySakeeper(t, []string{
		"webhook", "--kubeconfig", kubeconfig, "--bind-address", host, "--secure-port", port, "-v=10",
		"--tls-cert-file", certFile, "--tls-private-key-file", keyFile, "--shutdown-delay-duration=0s",
	})
	client := caller(t, pki.Bundle(ca.Cert()))
	want := map[string]int{}
	for name, r := range badRequests(t, namespace) {
		t.Run(name, func(t *testing.T) { r.expectRefused(t, client, w) })
		want[r.label()]++
	}

	good := review(t, namespace, pod("good"))
	code, body := do(t, client, http.MethodPost, "https://"+w.Address+"/mutate/pods", mustJSON(t, good))
	if answer := mustAnswer(t, body); code != http.StatusOK || !answer.Allowed || answer.UID != good.Request.UID || len(answer.Patch) == 0 {
		t.Errorf("a good review after the bad ones: %d %s", code, body)
	}
	want[`path="/mutate/pods",result="allowed"`]++
	if diff := cmp.Diff(want, countsOf(t, s)); diff != "" {
		t.Errorf("requests by metrics (-want +got):\n%s", diff)
	}
	if strings.Contains(s.Logs(), unspeakable) {
		t.Error("what a pod holds is in the log")
	}
	if err := contains(s.Logs(), "Refused a request"); err != nil {
		t.Errorf("the log: %v", err)
	}
}

// countsOf returns the request counts of the webhook.
func countsOf(t *testing.T, s *controlplane.Sakeeper) map[string]int {
	t.Helper()
	_, metrics, err := s.Get(t.Context(), "/metrics")
	must(t, err)
	counts := map[string]int{}
	for line := range strings.Lines(metrics) {
		if rest, ok := strings.CutPrefix(line, "sakeeper_webhook_requests_total{"); ok {
			labels, value, _ := strings.Cut(rest, "} ")
			var n int
			_, err := fmt.Sscan(value, &n)
			must(t, err)
			counts[labels] = n
		}
	}
	return counts
}
