package faults

import (
	"encoding/json"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Fault is how the proxy handles a request.
type Fault struct {
	serve        func(w http.ResponseWriter, r *http.Request, lifted <-chan struct{}, upstream http.Handler)
	holdsStreams bool
}

// Injection is a fault that is in effect until it is lifted.
type Injection struct {
	fault  Fault
	match  func(Request) bool
	hits   atomic.Int64
	lifted chan struct{}
	lift   sync.Once
	proxy  *Proxy
}

// Inject applies fault to all requests for which match returns true, until the result is
// lifted; a nil match matches all. If several injections match, the newest one applies.
// match is called under a lock: it must not call the proxy.
func (p *Proxy) Inject(fault Fault, match func(Request) bool) *Injection {
	if match == nil {
		match = func(Request) bool { return true }
	}
	i := &Injection{fault: fault, match: match, lifted: make(chan struct{}), proxy: p}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.injections = append(p.injections, i)
	return i
}

// Hits returns the number of requests to which the fault was applied.
func (i *Injection) Hits() int { return int(i.hits.Load()) }

// Lift ends the injection. Further calls do nothing.
func (i *Injection) Lift() {
	i.lift.Do(func() {
		i.proxy.mu.Lock()
		defer i.proxy.mu.Unlock()
		var left []*Injection
		for _, other := range i.proxy.injections {
			if other != i {
				left = append(left, other)
			}
		}
		i.proxy.injections = left
		close(i.lifted)
	})
}

// Pass passes requests on: it exempts them from older faults.
func Pass() Fault {
	return Fault{serve: func(w http.ResponseWriter, r *http.Request, _ <-chan struct{}, upstream http.Handler) {
		upstream.ServeHTTP(w, r)
	}}
}

// Conflict returns 409, for a precondition that does not hold.
func Conflict() Fault {
	return answer(http.StatusConflict, metav1.StatusReasonConflict, 0)
}

// NotFound returns 404.
func NotFound() Fault {
	return answer(http.StatusNotFound, metav1.StatusReasonNotFound, 0)
}

// InternalError returns 500.
func InternalError() Fault {
	return answer(http.StatusInternalServerError, metav1.StatusReasonInternalError, 0)
}

// TooManyRequests returns 429 with a Retry-After of after, which is rounded up to seconds.
func TooManyRequests(after time.Duration) Fault {
	return answer(http.StatusTooManyRequests, metav1.StatusReasonTooManyRequests, after)
}

// Expired returns 410, for a resourceVersion that is too old.
func Expired() Fault {
	return answer(http.StatusGone, metav1.StatusReasonExpired, 0)
}

func answer(code int, reason metav1.StatusReason, after time.Duration) Fault {
	seconds := int((after + time.Second - 1) / time.Second)
	status := metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
		Status:   metav1.StatusFailure, Reason: reason, Code: int32(code), Message: "injected: " + string(reason),
	}
	if seconds > 0 {
		status.Details = &metav1.StatusDetails{RetryAfterSeconds: int32(seconds)}
	}
	return Fault{serve: func(w http.ResponseWriter, _ *http.Request, _ <-chan struct{}, _ http.Handler) {
		w.Header().Set("Content-Type", "application/json")
		if seconds > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(seconds))
		}
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(status) // the client may have disconnected
	}}
}

// Reset resets the connection before the API server gets the request.
func Reset() Fault {
	return Fault{serve: func(_ http.ResponseWriter, r *http.Request, _ <-chan struct{}, _ http.Handler) { reset(r) }}
}

// ResetAfter resets the connection after the API server has answered; the client does not
// get the response.
func ResetAfter() Fault {
	return Fault{serve: func(_ http.ResponseWriter, r *http.Request, _ <-chan struct{}, upstream http.Handler) {
		upstream.ServeHTTP(discardResponse{}, r)
		reset(r)
	}}
}

// Silence delays requests until it is lifted, and also the events of watches that are open.
func Silence() Fault {
	return Fault{holdsStreams: true, serve: func(w http.ResponseWriter, r *http.Request, lifted <-chan struct{}, upstream http.Handler) {
		select {
		case <-lifted:
			upstream.ServeHTTP(w, r)
		case <-r.Context().Done():
		}
	}}
}

// discardResponse discards a response.
type discardResponse struct{}

func (discardResponse) Header() http.Header         { return http.Header{} }
func (discardResponse) WriteHeader(int)             {}
func (discardResponse) Write(p []byte) (int, error) { return len(p), nil }
