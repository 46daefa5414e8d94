package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"runtime/debug"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/klog/v2"
)

const (
	// defaultTimeout is that of a webhook configuration that names none.
	defaultTimeout = 10 * time.Second
	// maxTimeout is the longest that a webhook configuration may name.
	maxTimeout = 30 * time.Second
)

// Handler decides one review. request is never nil and has a uid; what it holds
// besides is as it came. The context ends when the API server stops waiting, which
// it tells rounded up to a second.
//
// An error is a denial: with its own status where it is an [apierrors.APIStatus],
// as "Timeout" where the context's time was up, and else as an internal error.
// Its text reaches the user. The response's UID is set by the server.
type Handler func(ctx context.Context, request *admissionv1.AdmissionRequest) (*admissionv1.AdmissionResponse, error)

// outcome is what is known of a request in the end.
type outcome struct {
	path   string
	result result
	// code and body are the HTTP answer; a body with code 200 is JSON, else text.
	code int
	body []byte
	// err is for the log: why the result is failed, panicked or refused.
	err     error
	request *admissionv1.AdmissionRequest // nil: it never came to one
}

// ServeHTTP answers one request. It alone writes status, log and metrics.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	o := s.answer(w, r)
	if s.draining.Load() {
		w.Header().Set("Connection", "close")
	}
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if o.code == http.StatusOK {
		w.Header().Set("Content-Type", "application/json")
	} else {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	}
	w.WriteHeader(o.code)
	_, _ = w.Write(o.body) // who does not wait for it does not get it
	took := time.Since(began)
	s.metrics.observe(o.path, o.result, took)
	o.log(klog.FromContext(r.Context()), took)
}

func (s *Server) answer(w http.ResponseWriter, r *http.Request) (o outcome) {
	o.path = otherPath
	defer func() {
		if p := recover(); p != nil { // not the handler's, which has its own guard
			o.result, o.code, o.body = panicked, http.StatusInternalServerError, []byte("internal error\n")
			o.err = panicError(p)
		}
	}()
	handler, ok := s.cfg.Handlers[r.URL.Path]
	if !ok {
		return o.refuse(refusal{http.StatusNotFound, "there is no such path"})
	}
	o.path = r.URL.Path
	timeout, err := timeoutOf(r)
	if err != nil {
		return o.refuse(err)
	}
	count := &held{all: &s.held}
	defer count.release()
	body, err := read(w, r, count)
	if err != nil {
		return o.refuse(err)
	}
	if o.request, err = decode(body); err != nil {
		return o.refuse(err)
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	var response *admissionv1.AdmissionResponse
	response, o.result, o.err = decideWith(ctx, handler, o.request)
	if o.body, err = encode(response); err != nil {
		o.result, o.code, o.body, o.err = failed, http.StatusInternalServerError, []byte("internal error\n"), err
		return o
	}
	o.code = http.StatusOK
	return o
}

// refusal is the answer to what is no review.
type refusal struct {
	code int
	text string
}

func (r refusal) Error() string { return r.text }

func (o *outcome) refuse(err error) outcome {
	o.result, o.err, o.code = refused, err, http.StatusBadRequest
	if r := (refusal{}); errors.As(err, &r) {
		o.code = r.code
	}
	o.body = append([]byte(err.Error()), '\n')
	return *o
}

func (o *outcome) log(logger klog.Logger, took time.Duration) {
	logger = logger.WithValues("path", o.path, "result", o.result, "duration", took)
	if o.request != nil {
		logger = logger.WithValues("uid", o.request.UID, "operation", o.request.Operation,
			"resource", o.request.Resource.Resource, "object", klog.KRef(o.request.Namespace, o.request.Name))
	}
	switch o.result {
	case failed, panicked:
		logger.Error(o.err, "Denied a request, its handler failed")
	case refused:
		logger.V(2).Info("Refused a request", "code", o.code, "reason", o.err.Error())
	case allowed, denied:
		logger.V(4).Info("Answered a review")
	}
}

// timeoutOf reads for how long the API server will wait.
func timeoutOf(r *http.Request) (time.Duration, error) {
	value := r.URL.Query().Get("timeout")
	if value == "" {
		return defaultTimeout, nil
	}
	timeout, err := time.ParseDuration(value)
	if err != nil || timeout <= 0 {
		return 0, refusal{http.StatusBadRequest, fmt.Sprintf("timeout must be a positive duration, not %.20q", value)}
	}
	return min(timeout, maxTimeout), nil
}

// read returns the body of a request that may be a review, and counts it.
func read(w http.ResponseWriter, r *http.Request, count *held) ([]byte, error) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return nil, refusal{http.StatusMethodNotAllowed, "the method must be POST"}
	}
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/json" {
		return nil, refusal{http.StatusUnsupportedMediaType, "the content type must be application/json"}
	}
	tooLarge := refusal{http.StatusRequestEntityTooLarge, fmt.Sprintf("the body must not be larger than %d bytes", maxBody)}
	if r.ContentLength > maxBody {
		return nil, tooLarge
	}
	// Little room before anything has come, whatever was announced.
	body := bytes.NewBuffer(make([]byte, 0, min(max(r.ContentLength, 0), 4<<10)+bytes.MinRead))
	count.Reader = http.MaxBytesReader(w, r.Body, maxBody)
	_, err := body.ReadFrom(count)
	switch over := (*http.MaxBytesError)(nil); {
	case errors.As(err, &over):
		return nil, tooLarge
	case errors.Is(err, errHeld):
		return nil, refusal{http.StatusServiceUnavailable, err.Error()}
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, refusal{http.StatusBadRequest, "the body is shorter than announced"}
	case err != nil:
		return nil, refusal{http.StatusBadRequest, "the body cannot be read"}
	case body.Len() == 0:
		return nil, refusal{http.StatusBadRequest, "the body is empty"}
	}
	return body.Bytes(), nil
}

// decode reads a review. Names of fields must be spelled as the API server does.
func decode(body []byte) (*admissionv1.AdmissionRequest, error) {
	review := admissionv1.AdmissionReview{}
	if err := utiljson.Unmarshal(body, &review); err != nil {
		// The decoder's words may quote the object.
		return nil, errors.New("the body is not an AdmissionReview in JSON")
	}
	switch request := review.Request; {
	case review.TypeMeta != typeMeta():
		return nil, fmt.Errorf("the body must be of kind AdmissionReview in %s, not %.40q in %.40q", admissionv1.SchemeGroupVersion, review.Kind, review.APIVersion)
	case request == nil:
		return nil, errors.New("the review has no request")
	case request.UID == "":
		return nil, errors.New("the review's request has no uid")
	default:
		return request, nil
	}
}

// decideWith asks handler, and makes a denial of whatever is no answer.
func decideWith(ctx context.Context, handler Handler, request *admissionv1.AdmissionRequest) (*admissionv1.AdmissionResponse, result, error) {
	uid := request.UID // the handler may do with the request as it likes
	response, r, err := guard(ctx, handler, request)
	if response == nil {
		return &admissionv1.AdmissionResponse{UID: uid, Result: statusOf(err, r)}, r, err
	}
	answer := *response // which may be one for all requests
	answer.UID = uid
	return &answer, r, err
}

// guard returns no response when it returns an error.
func guard(ctx context.Context, handler Handler, request *admissionv1.AdmissionRequest) (response *admissionv1.AdmissionResponse, r result, err error) {
	defer func() {
		if p := recover(); p != nil {
			response, r, err = nil, panicked, panicError(p)
		}
	}()
	response, err = handler(ctx, request)
	switch {
	case err != nil:
		return nil, failed, err
	case response == nil:
		return nil, failed, errors.New("the handler gave no answer")
	case response.Allowed:
		return response, allowed, nil
	default:
		return response, denied, nil
	}
}

func panicError(p any) error {
	return fmt.Errorf("panicked (%T) at\n%s", p, debug.Stack())
}

// statusOf is what the user is told of a failure.
func statusOf(err error, r result) *metav1.Status {
	if r == panicked { // where it happened is for the log
		err = errors.New("the webhook panicked, its log says where")
	}
	var known apierrors.APIStatus
	if errors.As(err, &known) {
		status := known.Status()
		return &status
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return new(apierrors.NewTimeoutError(err.Error(), 1).Status())
	}
	return new(apierrors.NewInternalError(err).Status())
}

// encode writes the answer to a review.
func encode(response *admissionv1.AdmissionResponse) ([]byte, error) {
	return json.Marshal(&admissionv1.AdmissionReview{TypeMeta: typeMeta(), Response: response})
}

func typeMeta() metav1.TypeMeta {
	return metav1.TypeMeta{APIVersion: admissionv1.SchemeGroupVersion.String(), Kind: "AdmissionReview"}
}
