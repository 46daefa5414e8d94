package review

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
	// defaultTimeout is the timeout of a webhook configuration that sets none.
	defaultTimeout = 10 * time.Second
	// MaxTimeout is the longest timeout that a webhook configuration may set, and the longest
	// time that a [Func] gets.
	MaxTimeout = 30 * time.Second
	// maxBody is the longest body that the API server should send: it takes bodies of 3 MiB, a
	// review of an update holds the object twice, and the rest of the review (user, options)
	// has 1 MiB. An object that is larger than that in JSON is refused.
	maxBody = 7 << 20
)

// Func decides one review. request is never nil and has a uid; everything else in it is as the
// client sent it. ctx ends when the API server stops waiting; the API server rounds that
// timeout up to a second.
//
// An error is a denial: with its own status if it is an [apierrors.APIStatus], as "Timeout" if
// the time of ctx was up, and else as an internal error. Users see its text. The uid of the
// response is set by the caller. A Func is called concurrently.
type Func func(ctx context.Context, request *admissionv1.AdmissionRequest) (*admissionv1.AdmissionResponse, error)

// NewHandler returns a handler that answers AdmissionReviews with decide, on any path. It logs
// to the logger of the request's context. The bodies of its requests count in inFlight; nil
// gives the handler a limit of its own.
//
// The server around it must limit the time to read a request and the size of its header.
func NewHandler(decide Func, inFlight *InFlight) http.Handler {
	if inFlight == nil {
		inFlight = &InFlight{}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		a := Do(w, r, decide, inFlight)
		a.Write(w)
		a.Log(klog.FromContext(r.Context()).WithValues("path", r.URL.Path), time.Since(began))
	})
}

// Result is how a request was answered.
type Result string

// The results. Their values are labels of the server's metrics.
const (
	// Allowed and Denied: the function decided so.
	Allowed Result = "allowed"
	Denied  Result = "denied"
	// Failed: the function returned an error, or no response in time.
	Failed Result = "error"
	// Panicked: the function panicked.
	Panicked Result = "panic"
	// Refused: the request was not a review, and the function was not called.
	Refused Result = "refused"
)

// Answer is the answer to one request, for servers that count answers or add headers to them.
type Answer struct {
	Result Result

	// code and body are the HTTP answer: JSON if code is 200, else text.
	code int
	body []byte
	// err says why the result is Failed, Panicked or Refused.
	err     error
	request *admissionv1.AdmissionRequest // nil if none could be read
}

// Do answers the review in r with decide, and writes nothing to w but headers that belong to
// the answer. The body of r counts in inFlight until Do returns.
func Do(w http.ResponseWriter, r *http.Request, decide Func, inFlight *InFlight) (a Answer) {
	defer func() {
		if p := recover(); p != nil { // a panic of decide is recovered in call
			a.Result, a.err = Panicked, panicError(p)
			a.code, a.body = http.StatusInternalServerError, []byte("internal error\n")
		}
	}()
	timeout, err := timeoutOf(r)
	if err != nil {
		return refused(err)
	}
	body := &countedBody{inFlight: inFlight}
	defer body.release()
	content, err := read(w, r, body)
	if err != nil {
		return refused(err)
	}
	if a.request, err = decode(content); err != nil {
		return refused(err)
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	var response *admissionv1.AdmissionResponse
	response, a.Result, a.err = respond(ctx, decide, a.request)
	a.code = http.StatusOK
	if a.body, err = encode(response); err != nil {
		a.Result, a.err = Failed, err
		a.code, a.body = http.StatusInternalServerError, []byte("internal error\n")
	}
	return a
}

// Refuse answers a request that is not a review with an HTTP status and a text.
func Refuse(code int, text string) Answer { return refused(refusal{code, text}) }

// refusal is an error with an HTTP status.
type refusal struct {
	code int
	text string
}

func (r refusal) Error() string { return r.text }

func refused(err error) Answer {
	a := Answer{Result: Refused, err: err, code: http.StatusBadRequest, body: append([]byte(err.Error()), '\n')}
	if r := (refusal{}); errors.As(err, &r) {
		a.code = r.code
	}
	return a
}

// Write writes the answer. If the client has gone away, nothing is written.
func (a Answer) Write(w http.ResponseWriter) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if a.code == http.StatusOK {
		w.Header().Set("Content-Type", "application/json")
	} else {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	}
	w.WriteHeader(a.code)
	_, _ = w.Write(a.body)
}

// Log logs the answer and how long it took: an error if the function failed, else at the
// verbosity 2 (refused) or 4.
func (a Answer) Log(logger klog.Logger, took time.Duration) {
	logger = logger.WithValues("result", a.Result, "duration", took)
	if a.request != nil {
		logger = logger.WithValues("uid", a.request.UID, "operation", a.request.Operation,
			"resource", a.request.Resource.Resource, "object", klog.KRef(a.request.Namespace, a.request.Name))
	}
	switch a.Result {
	case Failed, Panicked:
		logger.Error(a.err, "Denied a request, its handler failed")
	case Refused:
		logger.V(2).Info("Refused a request", "code", a.code, "reason", a.err.Error())
	case Allowed, Denied:
		logger.V(4).Info("Answered a review")
	}
}

// timeoutOf reads how long the API server waits for the answer.
func timeoutOf(r *http.Request) (time.Duration, error) {
	value := r.URL.Query().Get("timeout")
	if value == "" {
		return defaultTimeout, nil
	}
	timeout, err := time.ParseDuration(value)
	if err != nil || timeout <= 0 {
		return 0, refusal{http.StatusBadRequest, fmt.Sprintf("timeout must be a positive duration, not %.20q", value)}
	}
	return min(timeout, MaxTimeout), nil
}

// read returns the body of a request that may be a review.
func read(w http.ResponseWriter, r *http.Request, counted *countedBody) ([]byte, error) {
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
	// A large Content-Length alone must not take memory.
	body := bytes.NewBuffer(make([]byte, 0, min(max(r.ContentLength, 0), 4<<10)+bytes.MinRead))
	counted.Reader = http.MaxBytesReader(w, r.Body, maxBody)
	_, err := body.ReadFrom(counted)
	switch over := (*http.MaxBytesError)(nil); {
	case errors.As(err, &over):
		return nil, tooLarge
	case errors.Is(err, errInFlight):
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

// decode reads a review. Names of fields are case-sensitive, as in the API server.
func decode(body []byte) (*admissionv1.AdmissionRequest, error) {
	review := admissionv1.AdmissionReview{}
	if err := utiljson.Unmarshal(body, &review); err != nil {
		// The text of the decoder's error may quote the object.
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

// respond calls decide, and returns a denial if that returns no response.
func respond(ctx context.Context, decide Func, request *admissionv1.AdmissionRequest) (*admissionv1.AdmissionResponse, Result, error) {
	uid := request.UID // decide may change the request
	response, result, err := call(ctx, decide, request)
	if response == nil {
		return &admissionv1.AdmissionResponse{UID: uid, Result: statusOf(err, result)}, result, err
	}
	answer := *response // decide may return the same response to all requests
	answer.UID = uid
	return &answer, result, err
}

// call returns either a response or an error.
func call(ctx context.Context, decide Func, request *admissionv1.AdmissionRequest) (response *admissionv1.AdmissionResponse, result Result, err error) {
	defer func() {
		if p := recover(); p != nil {
			response, result, err = nil, Panicked, panicError(p)
		}
	}()
	response, err = decide(ctx, request)
	switch {
	case err != nil:
		return nil, Failed, err
	case response == nil:
		return nil, Failed, errors.New("the handler returned no response")
	case response.Allowed:
		return response, Allowed, nil
	default:
		return response, Denied, nil
	}
}

func panicError(p any) error {
	return fmt.Errorf("panicked (%T) at\n%s", p, debug.Stack())
}

// statusOf is the status of a failure as the user sees it.
func statusOf(err error, result Result) *metav1.Status {
	if result == Panicked { // the stack is for the log only
		err = errors.New("the webhook panicked, see its log")
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

func encode(response *admissionv1.AdmissionResponse) ([]byte, error) {
	return json.Marshal(&admissionv1.AdmissionReview{TypeMeta: typeMeta(), Response: response})
}

func typeMeta() metav1.TypeMeta {
	return metav1.TypeMeta{APIVersion: admissionv1.SchemeGroupVersion.String(), Kind: "AdmissionReview"}
}
