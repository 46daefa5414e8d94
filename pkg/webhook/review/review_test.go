package review

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
	admissionv1 "k8s.io/api/admission/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/klog/v2"
)

func TestBadInputIsRefusedWithoutACall(t *testing.T) {
	with := func(change func(*http.Request)) func() *http.Request {
		return func() *http.Request {
			r := newRequest(reviewBody)
			change(r)
			return r
		}
	}
	body := func(text string) func() *http.Request { return func() *http.Request { return newRequest(text) } }
	replaced := func(old, updated string) func() *http.Request {
		if !strings.Contains(reviewBody, old) {
			t.Fatalf("the review has no %s", old)
		}
		return body(strings.Replace(reviewBody, old, updated, 1))
	}
	long := strings.Repeat(" ", 10<<20)

	cases := map[string]struct {
		in       func() *http.Request
		want     int
		wantText string
	}{
		"another method":                     {in: with(func(r *http.Request) { r.Method = http.MethodGet }), want: 405, wantText: "the method must be POST"},
		"no content type":                    {in: with(func(r *http.Request) { r.Header.Del("Content-Type") }), want: 415, wantText: "the content type must be application/json"},
		"protobuf":                           {in: with(func(r *http.Request) { r.Header.Set("Content-Type", "application/vnd.kubernetes.protobuf") }), want: 415, wantText: "the content type must be application/json"},
		"a malformed content type":           {in: with(func(r *http.Request) { r.Header.Set("Content-Type", "application/json;;") }), want: 415, wantText: "the content type must be application/json"},
		"a malformed timeout":                {in: with(func(r *http.Request) { r.URL.RawQuery = "timeout=soon" }), want: 400, wantText: `timeout must be a positive duration, not "soon"`},
		"a zero timeout":                     {in: with(func(r *http.Request) { r.URL.RawQuery = "timeout=0s" }), want: 400, wantText: `timeout must be a positive duration, not "0s"`},
		"a negative timeout":                 {in: with(func(r *http.Request) { r.URL.RawQuery = "timeout=-1s" }), want: 400, wantText: `timeout must be a positive duration, not "-1s"`},
		"an empty body":                      {in: body(""), want: 400, wantText: "the body is empty"},
		"a body of 10 MiB":                   {in: body(reviewBody + long), want: 413, wantText: "the body must not be larger than 7340032 bytes"},
		"without a content length":           {in: with(func(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(strings.NewReader(reviewBody+long)), -1 }), want: 413, wantText: "the body must not be larger than 7340032 bytes"},
		"a content length that is too large": {in: with(func(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(brokenReader{errBoom}), maxBody+1 }), want: 413, wantText: "the body must not be larger than 7340032 bytes"},
		"a body that ends early":             {in: with(func(r *http.Request) { r.Body = io.NopCloser(brokenReader{io.ErrUnexpectedEOF}) }), want: 400, wantText: "the body is shorter than announced"},
		"a body that fails":                  {in: with(func(r *http.Request) { r.Body = io.NopCloser(brokenReader{errBoom}) }), want: 400, wantText: "the body cannot be read"},
		"not JSON":                           {in: body("secret"), want: 400, wantText: "the body is not an AdmissionReview in JSON"},
		"truncated JSON":                     {in: body(reviewBody[:len(reviewBody)-1]), want: 400, wantText: "the body is not an AdmissionReview in JSON"},
		"data after the JSON":                {in: body(reviewBody + "{}"), want: 400, wantText: "the body is not an AdmissionReview in JSON"},
		"a list":                             {in: body("[" + reviewBody + "]"), want: 400, wantText: "the body is not an AdmissionReview in JSON"},
		"a wrong type":                       {in: replaced(`"uid":"u1"`, `"uid":{"secret":1}`), want: 400, wantText: "the body is not an AdmissionReview in JSON"},
		"null":                               {in: body("null"), want: 400, wantText: `the body must be of kind AdmissionReview in admission.k8s.io/v1, not "" in ""`},
		"another version":                    {in: replaced("admission.k8s.io/v1", "admission.k8s.io/v1beta1"), want: 400, wantText: `the body must be of kind AdmissionReview in admission.k8s.io/v1, not "AdmissionReview" in "admission.k8s.io/v1beta1"`},
		"another kind":                       {in: replaced("AdmissionReview", "Pod"), want: 400, wantText: `the body must be of kind AdmissionReview in admission.k8s.io/v1, not "Pod" in "admission.k8s.io/v1"`},
		"letters in another case":            {in: replaced(`"apiVersion"`, `"apiversion"`), want: 400, wantText: `the body must be of kind AdmissionReview in admission.k8s.io/v1, not "AdmissionReview" in ""`},
		"no request":                         {in: body(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}`), want: 400, wantText: "the review has no request"},
		"a null request":                     {in: body(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":null}`), want: 400, wantText: "the review has no request"},
		"a response":                         {in: body(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{"uid":"u1","allowed":true}}`), want: 400, wantText: "the review has no request"},
		"an empty request":                   {in: body(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{}}`), want: 400, wantText: "the review's request has no uid"},
		"no uid":                             {in: replaced(`"uid":"u1",`, ""), want: 400, wantText: "the review's request has no uid"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			h := NewHandler(func(context.Context, *admissionv1.AdmissionRequest) (*admissionv1.AdmissionResponse, error) {
				t.Error("the function was called")
				return allow(t.Context(), nil)
			}, nil)
			logger, logs := bufferedLogger(t)
			w := serve(h, tc.in().WithContext(klog.NewContext(t.Context(), logger)))
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
			expectLogged(t, logs(), Refused)
		})
	}
}

type brokenReader struct{ err error }

func (b brokenReader) Read(p []byte) (int, error) { return copy(p, reviewBody[:10]), b.err }

// expectLogged wants one line, with that result.
func expectLogged(t *testing.T, logs string, result Result) {
	t.Helper()
	if want := fmt.Sprintf("path=%q result=%q", path, result); strings.Count(logs, want) != 1 || strings.Count(logs, "result=") != 1 {
		t.Errorf("log, want %s:\n%s", want, logs)
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
		wantResult Result
		wantLog    string // and in no other
	}{
		"allowed":                         {inAnswer: &response{Allowed: true}, want: &response{UID: "u1", Allowed: true}, wantResult: "allowed"},
		"denied":                          {inAnswer: &response{Result: &metav1.Status{Code: 403, Message: "no"}}, want: &response{UID: "u1", Result: &metav1.Status{Code: 403, Message: "no"}}, wantResult: "denied"},
		"denied without a reason":         {inAnswer: &response{}, want: &response{UID: "u1"}, wantResult: "denied"},
		"a uid of the function":           {inAnswer: &response{UID: "other", Allowed: true}, want: &response{UID: "u1", Allowed: true}, wantResult: "allowed"},
		"patch and warnings":              {inAnswer: &response{Allowed: true, Patch: []byte("[]"), PatchType: new(admissionv1.PatchTypeJSONPatch), Warnings: []string{"w"}, AuditAnnotations: map[string]string{"k": "v"}}, want: &response{UID: "u1", Allowed: true, Patch: []byte("[]"), PatchType: new(admissionv1.PatchTypeJSONPatch), Warnings: []string{"w"}, AuditAnnotations: map[string]string{"k": "v"}}, wantResult: "allowed"},
		"an error":                        {inErr: errBoom, want: denial(apierrors.NewInternalError(errBoom)), wantResult: "error", wantLog: "boom"},
		"an error beats an allow":         {inAnswer: &response{Allowed: true}, inErr: errBoom, want: denial(apierrors.NewInternalError(errBoom)), wantResult: "error", wantLog: "boom"},
		"a status":                        {inErr: conflict, want: denial(conflict), wantResult: "error", wantLog: "boom"},
		"a wrapped status":                {inErr: fmt.Errorf("outer: %w", busy), want: denial(busy), wantResult: "error", wantLog: "outer: later"},
		"the time is up":                  {inErr: context.DeadlineExceeded, want: denial(apierrors.NewTimeoutError("context deadline exceeded", 1)), wantResult: "error", wantLog: "deadline"},
		"the API server has gone away":    {inErr: context.Canceled, want: denial(apierrors.NewTimeoutError("context canceled", 1)), wantResult: "error", wantLog: "canceled"},
		"no response":                     {want: denial(apierrors.NewInternalError(fmt.Errorf("the handler returned no response"))), wantResult: "error", wantLog: "returned no response"},
		"a panic":                         {inPanic: "secret", want: denial(apierrors.NewInternalError(fmt.Errorf("the webhook panicked, see its log"))), wantResult: "panic", wantLog: "review_test.go"},
		"a panic with an error":           {inPanic: conflict, want: denial(apierrors.NewInternalError(fmt.Errorf("the webhook panicked, see its log"))), wantResult: "panic", wantLog: "review_test.go"},
		"a panic that aborts in net/http": {inPanic: http.ErrAbortHandler, want: denial(apierrors.NewInternalError(fmt.Errorf("the webhook panicked, see its log"))), wantResult: "panic", wantLog: "review_test.go"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			h := NewHandler(func(_ context.Context, request *admissionv1.AdmissionRequest) (*response, error) {
				request.UID = "lost"
				if tc.inPanic != nil {
					panic(tc.inPanic)
				}
				return tc.inAnswer, tc.inErr
			}, nil)
			logger, logs := bufferedLogger(t)
			w := serve(h, newRequest(reviewBody).WithContext(klog.NewContext(t.Context(), logger)))
			expectReview(t, w, tc.want)
			expectLogged(t, logs(), tc.wantResult)
			if tc.wantLog != "" != strings.Contains(logs(), "Denied a request, its handler failed") || !strings.Contains(logs(), tc.wantLog) {
				t.Errorf("log:\n%s\nwant %q", logs(), tc.wantLog)
			}
			if strings.Contains(logs()+w.Body.String(), "secret") {
				t.Errorf("the panic's value is shown: %s", logs())
			}
		})
	}
}

func TestAFunctionMayReuseItsResponse(t *testing.T) {
	kept := &admissionv1.AdmissionResponse{Allowed: true}
	h := NewHandler(func(context.Context, *admissionv1.AdmissionRequest) (*admissionv1.AdmissionResponse, error) {
		return kept, nil
	}, nil)
	expectReview(t, serve(h, newRequest(reviewBody)), &admissionv1.AdmissionResponse{UID: "u1", Allowed: true})
	if kept.UID != "" {
		t.Error("it was changed")
	}
}

func TestAFunctionGetsTheRequestUnchanged(t *testing.T) {
	var got *admissionv1.AdmissionRequest
	h := NewHandler(func(_ context.Context, request *admissionv1.AdmissionRequest) (*admissionv1.AdmissionResponse, error) {
		got = request
		return allow(t.Context(), nil)
	}, nil)
	r := newRequest(reviewBody)
	r.Header.Set("Content-Type", "application/json; charset=utf-8")
	serve(h, r)
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
func TestTheLargestReviewIsAnswered(t *testing.T) {
	object := `{"data":"` + strings.Repeat("x", 3<<20-100) + `"}`
	h := NewHandler(allow, nil)
	w := serve(h, newRequest(strings.Replace(reviewBody, `"object":`, `"oldObject":`+object+`,"object":`+object+`,"x":`, 1)))
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
				h := NewHandler(func(ctx context.Context, _ *admissionv1.AdmissionRequest) (*admissionv1.AdmissionResponse, error) {
					<-ctx.Done()
					return nil, fmt.Errorf("waiting: %w", ctx.Err())
				}, nil)
				r := newRequest(reviewBody)
				r.URL.RawQuery = query
				expectReview(t, serve(h, r), &admissionv1.AdmissionResponse{
					UID: "u1", Result: new(apierrors.NewTimeoutError("waiting: context deadline exceeded", 1).Status()),
				})
				if took := time.Since(began); took != want {
					t.Errorf("the context ended after %v, want %v", took, want)
				}
			})
		})
	}
}

// FuzzHandler checks that every request gets an answer, and that only reviews are allowed.
func FuzzHandler(f *testing.F) {
	f.Add("POST", path, "application/json", "timeout=10s", []byte(reviewBody))
	f.Add("POST", path, "application/json", "timeout=-1", []byte(reviewBody[:100]))
	f.Add("GET", "/other", "text/plain", "", []byte(nil))
	f.Add("POST", path, "application/json", "", []byte(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"\u0000"}}`))
	f.Add("POST", path, "application/json", "", []byte(strings.Repeat("[", 20000)))
	f.Add("POST", path, "application/json", "", []byte(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","object":null,"userInfo":{"extra":{"a":[""]}}}}`))
	f.Fuzz(func(t *testing.T, method, target, contentType, query string, body []byte) {
		called := false
		h := NewHandler(func(_ context.Context, request *admissionv1.AdmissionRequest) (*admissionv1.AdmissionResponse, error) {
			called = true
			if request == nil || request.UID == "" {
				t.Errorf("the function got %v", request)
			}
			return &admissionv1.AdmissionResponse{Allowed: true}, nil
		}, nil)
		r := newRequest(string(body))
		r.Method, r.URL.Path, r.URL.RawQuery = method, target, query
		r.Header.Set("Content-Type", contentType)
		w := serve(h, r)
		var got admissionv1.AdmissionReview
		err := json.Unmarshal(w.Body.Bytes(), &got)
		switch {
		case !called && (w.Code < 400 || w.Code >= 500 || err == nil && got.Response != nil):
			t.Errorf("answered %d %s without a call", w.Code, w.Body)
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

// BenchmarkReview compares answering a review with only decoding its JSON.
func BenchmarkReview(b *testing.B) {
	h := NewHandler(allow, nil)
	body := strings.Replace(reviewBody, `"object":`, `"object":`+benchmarkObject()+`,"x":`, 1)
	b.Run("served", func(b *testing.B) {
		for b.Loop() {
			if w := serve(h, newRequest(body)); w.Code != http.StatusOK {
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
	b.Run("recorder", func(b *testing.B) { // the part of "served" that is not the handler
		for b.Loop() {
			w := httptest.NewRecorder()
			http.Error(w, newRequest(body).Method, http.StatusOK)
		}
	})
}

// benchmarkObject is about as large as a pod with two containers.
func benchmarkObject() string {
	fields := make([]string, 0, 60)
	for i := range 60 {
		fields = append(fields, fmt.Sprintf(`"field%d":{"name":"a name %d","value":[1,2,{"deep":true}]}`, i, i))
	}
	return "{" + strings.Join(fields, ",") + "}"
}
