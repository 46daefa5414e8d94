package webhook

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	admissionv1 "k8s.io/api/admission/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/klog/v2"
)

func TestBadInputIsRefusedBeforeAnyHandler(t *testing.T) {
	with := func(change func(*http.Request)) func() *http.Request {
		return func() *http.Request {
			r := newRequest(review)
			change(r)
			return r
		}
	}
	body := func(text string) func() *http.Request { return func() *http.Request { return newRequest(text) } }
	replaced := func(old, updated string) func() *http.Request {
		if !strings.Contains(review, old) {
			t.Fatalf("the review has no %s", old)
		}
		return body(strings.Replace(review, old, updated, 1))
	}
	long := strings.Repeat(" ", 10<<20)

	cases := map[string]struct {
		in       func() *http.Request
		want     int
		wantText string
	}{
		"another path":        {in: with(func(r *http.Request) { r.URL.Path = "/" }), want: 404, wantText: "there is no such path"},
		"a path below":        {in: with(func(r *http.Request) { r.URL.Path = path + "/" }), want: 404, wantText: "there is no such path"},
		"another method":      {in: with(func(r *http.Request) { r.Method = http.MethodGet }), want: 405, wantText: "the method must be POST"},
		"no content type":     {in: with(func(r *http.Request) { r.Header.Del("Content-Type") }), want: 415, wantText: "the content type must be application/json"},
		"protobuf":            {in: with(func(r *http.Request) { r.Header.Set("Content-Type", "application/vnd.kubernetes.protobuf") }), want: 415, wantText: "the content type must be application/json"},
		"a broken type":       {in: with(func(r *http.Request) { r.Header.Set("Content-Type", "application/json;;") }), want: 415, wantText: "the content type must be application/json"},
		"a strange timeout":   {in: with(func(r *http.Request) { r.URL.RawQuery = "timeout=soon" }), want: 400, wantText: `timeout must be a positive duration, not "soon"`},
		"a zero timeout":      {in: with(func(r *http.Request) { r.URL.RawQuery = "timeout=0s" }), want: 400, wantText: `timeout must be a positive duration, not "0s"`},
		"a negative timeout":  {in: with(func(r *http.Request) { r.URL.RawQuery = "timeout=-1s" }), want: 400, wantText: `timeout must be a positive duration, not "-1s"`},
		"no body":             {in: body(""), want: 400, wantText: "the body is empty"},
		"ten megabytes":       {in: body(review + long), want: 413, wantText: "the body must not be larger than 7340032 bytes"},
		"unannounced":         {in: with(func(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(strings.NewReader(review+long)), -1 }), want: 413, wantText: "the body must not be larger than 7340032 bytes"},
		"announced, not read": {in: with(func(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(brokenReader{errBoom}), maxBody+1 }), want: 413, wantText: "the body must not be larger than 7340032 bytes"},
		"a body that breaks":  {in: with(func(r *http.Request) { r.Body = io.NopCloser(brokenReader{io.ErrUnexpectedEOF}) }), want: 400, wantText: "the body is shorter than announced"},
		"a body that fails":   {in: with(func(r *http.Request) { r.Body = io.NopCloser(brokenReader{errBoom}) }), want: 400, wantText: "the body cannot be read"},
		"no JSON":             {in: body("secret"), want: 400, wantText: "the body is not an AdmissionReview in JSON"},
		"truncated JSON":      {in: body(review[:len(review)-1]), want: 400, wantText: "the body is not an AdmissionReview in JSON"},
		"more after the JSON": {in: body(review + "{}"), want: 400, wantText: "the body is not an AdmissionReview in JSON"},
		"a list":              {in: body("[" + review + "]"), want: 400, wantText: "the body is not an AdmissionReview in JSON"},
		"a wrong type":        {in: replaced(`"uid":"u1"`, `"uid":{"secret":1}`), want: 400, wantText: "the body is not an AdmissionReview in JSON"},
		"null":                {in: body("null"), want: 400, wantText: `the body must be of kind AdmissionReview in admission.k8s.io/v1, not "" in ""`},
		"another version":     {in: replaced("admission.k8s.io/v1", "admission.k8s.io/v1beta1"), want: 400, wantText: `the body must be of kind AdmissionReview in admission.k8s.io/v1, not "AdmissionReview" in "admission.k8s.io/v1beta1"`},
		"another kind":        {in: replaced("AdmissionReview", "Pod"), want: 400, wantText: `the body must be of kind AdmissionReview in admission.k8s.io/v1, not "Pod" in "admission.k8s.io/v1"`},
		"other letters":       {in: replaced(`"apiVersion"`, `"apiversion"`), want: 400, wantText: `the body must be of kind AdmissionReview in admission.k8s.io/v1, not "AdmissionReview" in ""`},
		"no request":          {in: body(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}`), want: 400, wantText: "the review has no request"},
		"a null request":      {in: body(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":null}`), want: 400, wantText: "the review has no request"},
		"an answer":           {in: body(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{"uid":"u1","allowed":true}}`), want: 400, wantText: "the review has no request"},
		"an empty request":    {in: body(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{}}`), want: 400, wantText: "the review's request has no uid"},
		"no uid":              {in: replaced(`"uid":"u1",`, ""), want: 400, wantText: "the review's request has no uid"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			s, registry := newServer(t, func(context.Context, *admissionv1.AdmissionRequest) (*admissionv1.AdmissionResponse, error) {
				t.Error("the handler was called")
				return allow(t.Context(), nil)
			})
			logger, logs := bufferedLogger(t)
			r := tc.in()
			label := path
			if r.URL.Path != path {
				label = "other"
			}
			w := serve(s, r.WithContext(klog.NewContext(t.Context(), logger)))
			if w.Code != tc.want || w.Body.String() != tc.wantText+"\n" {
				t.Errorf("got %d %q, want %d %q", w.Code, w.Body, tc.want, tc.wantText)
			}
			if w.Header().Get("Content-Type") != "text/plain; charset=utf-8" || w.Header().Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("header %v", w.Header())
			}
			if allow := w.Header().Get("Allow"); (tc.want == 405) != (allow == "POST") {
				t.Errorf("Allow: %q", allow)
			}
			if strings.Contains(logs()+w.Body.String(), "secret") {
				t.Errorf("the body is quoted: %s", logs())
			}
			expectCount(t, registry, label, "refused")
		})
	}
}

type brokenReader struct{ err error }

func (b brokenReader) Read(p []byte) (int, error) { return copy(p, review[:10]), b.err }

// expectCount wants exactly one request, of that path and result.
func expectCount(t *testing.T, registry prometheus.Gatherer, path, result string) {
	t.Helper()
	want := fmt.Sprintf(`# HELP sakeeper_webhook_requests_total Requests that the webhook has answered, by path and result (allowed, denied, error, panic, refused).
# TYPE sakeeper_webhook_requests_total counter
sakeeper_webhook_requests_total{path=%q,result=%q} 1
`, path, result)
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "sakeeper_webhook_requests_total"); err != nil {
		t.Error(err)
	}
	if n, err := testutil.GatherAndCount(registry, "sakeeper_webhook_request_duration_seconds"); n != 1 || err != nil {
		t.Errorf("%d durations, error %v", n, err)
	}
}

func TestAnswers(t *testing.T) {
	type response = admissionv1.AdmissionResponse
	denial := func(err apierrors.APIStatus) *response {
		return &response{UID: "u1", Result: new(err.Status())}
	}
	conflict := apierrors.NewConflict(schema.GroupResource{Resource: "things"}, "thing", errBoom)
	busy := apierrors.NewTooManyRequests("later", 3)

	cases := map[string]struct {
		inAnswer   *response
		inErr      error
		inPanic    any
		want       *response
		wantResult string
		wantLog    string // and in no other
	}{
		"allowed":                      {inAnswer: &response{Allowed: true}, want: &response{UID: "u1", Allowed: true}, wantResult: "allowed"},
		"denied":                       {inAnswer: &response{Result: &metav1.Status{Code: 403, Message: "no"}}, want: &response{UID: "u1", Result: &metav1.Status{Code: 403, Message: "no"}}, wantResult: "denied"},
		"denied without words":         {inAnswer: &response{}, want: &response{UID: "u1"}, wantResult: "denied"},
		"a uid of the handler's":       {inAnswer: &response{UID: "other", Allowed: true}, want: &response{UID: "u1", Allowed: true}, wantResult: "allowed"},
		"patch and warnings":           {inAnswer: &response{Allowed: true, Patch: []byte("[]"), PatchType: new(admissionv1.PatchTypeJSONPatch), Warnings: []string{"w"}, AuditAnnotations: map[string]string{"k": "v"}}, want: &response{UID: "u1", Allowed: true, Patch: []byte("[]"), PatchType: new(admissionv1.PatchTypeJSONPatch), Warnings: []string{"w"}, AuditAnnotations: map[string]string{"k": "v"}}, wantResult: "allowed"},
		"an error":                     {inErr: errBoom, want: denial(apierrors.NewInternalError(errBoom)), wantResult: "error", wantLog: "boom"},
		"an error beats an allow":      {inAnswer: &response{Allowed: true}, inErr: errBoom, want: denial(apierrors.NewInternalError(errBoom)), wantResult: "error", wantLog: "boom"},
		"a status":                     {inErr: conflict, want: denial(conflict), wantResult: "error", wantLog: "boom"},
		"a wrapped status":             {inErr: fmt.Errorf("outer: %w", busy), want: denial(busy), wantResult: "error", wantLog: "outer: later"},
		"time was up":                  {inErr: context.DeadlineExceeded, want: denial(apierrors.NewTimeoutError("context deadline exceeded", 1)), wantResult: "error", wantLog: "deadline"},
		"the API server has gone away": {inErr: context.Canceled, want: denial(apierrors.NewTimeoutError("context canceled", 1)), wantResult: "error", wantLog: "canceled"},
		"no answer":                    {want: denial(apierrors.NewInternalError(fmt.Errorf("the handler gave no answer"))), wantResult: "error", wantLog: "no answer"},
		"a panic":                      {inPanic: "secret", want: denial(apierrors.NewInternalError(fmt.Errorf("the webhook panicked, its log says where"))), wantResult: "panic", wantLog: "review_test.go"},
		"a panic with an error":        {inPanic: conflict, want: denial(apierrors.NewInternalError(fmt.Errorf("the webhook panicked, its log says where"))), wantResult: "panic", wantLog: "review_test.go"},
		"a panic that net/http knows":  {inPanic: http.ErrAbortHandler, want: denial(apierrors.NewInternalError(fmt.Errorf("the webhook panicked, its log says where"))), wantResult: "panic", wantLog: "review_test.go"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			s, registry := newServer(t, func(_ context.Context, request *admissionv1.AdmissionRequest) (*response, error) {
				request.UID = "lost"
				if tc.inPanic != nil {
					panic(tc.inPanic)
				}
				return tc.inAnswer, tc.inErr
			})
			logger, logs := bufferedLogger(t)
			w := serve(s, newRequest(review).WithContext(klog.NewContext(t.Context(), logger)))
			expectReview(t, w, tc.want)
			expectCount(t, registry, path, tc.wantResult)
			if tc.wantLog != "" != strings.Contains(logs(), "Denied a request, its handler failed") || !strings.Contains(logs(), tc.wantLog) {
				t.Errorf("log:\n%s\nwant %q", logs(), tc.wantLog)
			}
			if strings.Contains(logs()+w.Body.String(), "secret") {
				t.Errorf("the panic's value is shown: %s", logs())
			}
		})
	}
}

func TestAHandlerMayKeepItsAnswer(t *testing.T) {
	kept := &admissionv1.AdmissionResponse{Allowed: true}
	s, _ := newServer(t, func(context.Context, *admissionv1.AdmissionRequest) (*admissionv1.AdmissionResponse, error) {
		return kept, nil
	})
	expectReview(t, serve(s, newRequest(review)), &admissionv1.AdmissionResponse{UID: "u1", Allowed: true})
	if kept.UID != "" {
		t.Error("it was changed")
	}
}

func TestTheHandlerSeesTheRequestAsItCame(t *testing.T) {
	var got *admissionv1.AdmissionRequest
	s, _ := newServer(t, func(_ context.Context, request *admissionv1.AdmissionRequest) (*admissionv1.AdmissionResponse, error) {
		got = request
		return allow(t.Context(), nil)
	})
	r := newRequest(review)
	r.Header.Set("Content-Type", "application/json; charset=utf-8")
	serve(s, r)
	want := &admissionv1.AdmissionRequest{
		UID: "u1", Name: "thing", Namespace: "team", Operation: admissionv1.Create,
		Kind:     metav1.GroupVersionKind{Version: "v1", Kind: "Thing"},
		Resource: metav1.GroupVersionResource{Version: "v1", Resource: "things"},
		Object:   runtime.RawExtension{Raw: []byte(`{"kind":"Thing","invented":1}`)},
	}
	want.UserInfo.Username = "jane"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestTheLargestReviewIsTaken sends an update of an object of 3 MiB.
func TestTheLargestReviewIsTaken(t *testing.T) {
	object := `{"data":"` + strings.Repeat("x", 3<<20-100) + `"}`
	s, _ := newServer(t, allow)
	w := serve(s, newRequest(strings.Replace(review, `"object":`, `"oldObject":`+object+`,"object":`+object+`,"x":`, 1)))
	expectReview(t, w, &admissionv1.AdmissionResponse{UID: "u1", Allowed: true})
}

func TestTimeouts(t *testing.T) {
	for query, want := range map[string]time.Duration{
		"": 10 * time.Second, "timeout=5s": 5 * time.Second, "timeout=30s": 30 * time.Second,
		"timeout=1h": 30 * time.Second, "timeout=1ms": time.Millisecond, "other=1s": 10 * time.Second,
	} {
		t.Run(query, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				s, _ := newServer(t, func(ctx context.Context, _ *admissionv1.AdmissionRequest) (*admissionv1.AdmissionResponse, error) {
					<-ctx.Done()
					return nil, fmt.Errorf("waiting: %w", ctx.Err())
				})
				r := newRequest(review)
				r.URL.RawQuery = query
				expectReview(t, serve(s, r), &admissionv1.AdmissionResponse{
					UID: "u1", Result: new(apierrors.NewTimeoutError("waiting: context deadline exceeded", 1).Status()),
				})
				if took := time.Since(began); took != want {
					t.Errorf("the context ended after %v, want %v", took, want)
				}
			})
		})
	}
}

// FuzzServeHTTP checks that whatever is sent is answered, and that nothing is allowed
// that is no review.
func FuzzServeHTTP(f *testing.F) {
	f.Add("POST", path, "application/json", "timeout=10s", []byte(review))
	f.Add("POST", path, "application/json", "timeout=-1", []byte(review[:100]))
	f.Add("GET", "/other", "text/plain", "", []byte(nil))
	f.Add("POST", path, "application/json", "", []byte(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"\u0000"}}`))
	f.Add("POST", path, "application/json", "", []byte(strings.Repeat("[", 20000)))
	f.Add("POST", path, "application/json", "", []byte(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","object":null,"userInfo":{"extra":{"a":[""]}}}}`))
	f.Fuzz(func(t *testing.T, method, target, contentType, query string, body []byte) {
		called := false
		s, _ := newServer(t, func(_ context.Context, request *admissionv1.AdmissionRequest) (*admissionv1.AdmissionResponse, error) {
			called = true
			if request == nil || request.UID == "" {
				t.Errorf("the handler got %v", request)
			}
			return &admissionv1.AdmissionResponse{Allowed: true}, nil
		})
		r := newRequest(string(body))
		r.Method, r.URL.Path, r.URL.RawQuery = method, target, query
		r.Header.Set("Content-Type", contentType)
		w := serve(s, r)
		var got admissionv1.AdmissionReview
		err := json.Unmarshal(w.Body.Bytes(), &got)
		switch {
		case !called && (w.Code < 400 || w.Code >= 500 || err == nil && got.Response != nil):
			t.Errorf("answered %d %s without a handler", w.Code, w.Body)
		case called && (w.Code != http.StatusOK || err != nil || got.Response == nil || got.TypeMeta != typeMeta()):
			t.Errorf("answered %d %s", w.Code, w.Body)
		case called:
			var sent admissionv1.AdmissionReview
			if err := json.Unmarshal(body, &sent); err != nil || sent.Request == nil || !strings.EqualFold(string(sent.Request.UID), string(got.Response.UID)) {
				t.Errorf("uid %q for %s", got.Response.UID, body)
			}
		}
	})
}

// BenchmarkReview compares one review with reading its JSON alone.
func BenchmarkReview(b *testing.B) {
	s, _ := newServer(b, allow)
	body := strings.Replace(review, `"object":`, `"object":`+benchmarkObject()+`,"x":`, 1)
	b.Run("served", func(b *testing.B) {
		for b.Loop() {
			if w := serve(s, newRequest(body)); w.Code != http.StatusOK {
				b.Fatal(w.Body)
			}
		}
	})
	b.Run("encoding-json", func(b *testing.B) {
		for b.Loop() {
			var review admissionv1.AdmissionReview
			if err := json.Unmarshal([]byte(body), &review); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("recorder", func(b *testing.B) { // what of served is not ours
		for b.Loop() {
			w := httptest.NewRecorder()
			http.Error(w, newRequest(body).Method, http.StatusOK)
		}
	})
}

// benchmarkObject is about as large as a pod of two containers.
func benchmarkObject() string {
	fields := make([]string, 0, 60)
	for i := range 60 {
		fields = append(fields, fmt.Sprintf(`"field%d":{"name":"a name %d","value":[1,2,{"deep":true}]}`, i, i))
	}
	return "{" + strings.Join(fields, ",") + "}"
}
