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

// Fault is what becomes of a request.
type Fault struct {
	do           func(w http.ResponseWriter, r *http.Request, lifted <-chan struct{}, upstream http.Handler)
	holdsStreams bool
}

// Injection is a fault in force.
type Injection struct {
	fault  Fault
	match  func(Request) bool
	hits   atomic.Int64
	lifted chan struct{}
	lift   sync.Once
	proxy  *Proxy
}

// Inject makes fault become of all requests that match is true for, and of all
// with match nil, until the result is lifted. Of several the newest one counts.
// match is called concurrently, and under a lock: it must not call the proxy.
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

// Hits is how many requests it has become of.
func (i *Injection) Hits() int { return int(i.hits.Load()) }

// Lift ends it; more than once is the same as once.
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

// Pass is no fault: an exception from older ones.
func Pass() Fault {
	return Fault{do: func(w http.ResponseWriter, r *http.Request, _ <-chan struct{}, upstream http.Handler) {
		upstream.ServeHTTP(w, r)
	}}
}

// Conflict answers that a precondition does not hold.
func Conflict() Fault {
	return answer(http.StatusConflict, metav1.StatusReasonConflict, 0)
}

// InternalError answers that something is wrong.
func InternalError() Fault {
	return answer(http.StatusInternalServerError, metav1.StatusReasonInternalError, 0)
}

// TooManyRequests answers that the client should come again later: in after, which
// is rounded up to seconds.
func TooManyRequests(after time.Duration) Fault {
	return answer(http.StatusTooManyRequests, metav1.StatusReasonTooManyRequests, after)
}

// Expired answers that a resourceVersion is too old.
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
	return Fault{do: func(w http.ResponseWriter, _ *http.Request, _ <-chan struct{}, _ http.Handler) {
		w.Header().Set("Content-Type", "application/json")
		if seconds > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(seconds))
		}
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(status) // a client that is gone wants no answer
	}}
}

// Reset breaks the connection before the API server has got the request.
func Reset() Fault {
	return Fault{do: func(_ http.ResponseWriter, r *http.Request, _ <-chan struct{}, _ http.Handler) { reset(r) }}
}

// ResetAfter breaks the connection when the API server has answered, of which the
// client hears nothing.
func ResetAfter() Fault {
	return Fault{do: func(_ http.ResponseWriter, r *http.Request, _ <-chan struct{}, upstream http.Handler) {
		upstream.ServeHTTP(nowhere{}, r)
		reset(r)
	}}
}

// Silence holds everything back until it is lifted, also what watches have to tell
// that began before.
func Silence() Fault {
	return Fault{holdsStreams: true, do: func(w http.ResponseWriter, r *http.Request, lifted <-chan struct{}, upstream http.Handler) {
		select {
		case <-lifted:
			upstream.ServeHTTP(w, r)
		case <-r.Context().Done():
		}
	}}
}

// nowhere takes an answer that nobody gets.
type nowhere struct{}

func (nowhere) Header() http.Header         { return http.Header{} }
func (nowhere) WriteHeader(int)             {}
func (nowhere) Write(p []byte) (int, error) { return len(p), nil }
