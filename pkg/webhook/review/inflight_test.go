package review

import (
	"context"
	"io"
	"net/http"
	"testing"
	"testing/synctest"

	admissionv1 "k8s.io/api/admission/v1"
)

// TestBytesInFlightAreBounded leaves room for two reviews only. A request counts while it is read
// and while it is answered, and not afterwards.
func TestBytesInFlightAreBounded(t *testing.T) {
	for name, ends := range map[string]bool{"while it is read": false, "while it is answered": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				leave := make(chan struct{})
				const others = maxInFlight - 2*int64(len(reviewBody))
				inFlight := &InFlight{}
				inFlight.bytes.Store(others)
				h := NewHandler(func(context.Context, *admissionv1.AdmissionRequest) (*admissionv1.AdmissionResponse, error) {
					<-leave
					return &admissionv1.AdmissionResponse{Allowed: true}, nil
				}, inFlight)
				body, sender := io.Pipe()
				r := newRequest("")
				r.Body, r.ContentLength = body, -1
				code := make(chan int)
				go func() { code <- serve(h, r).Code }()
				go func() {
					_, _ = sender.Write([]byte(reviewBody))
					if ends {
						_ = sender.Close()
					}
				}()
				synctest.Wait()
				if w := serve(h, newRequest(reviewBody+"{}")); w.Code != http.StatusServiceUnavailable || w.Body.String() != errInFlight.Error()+"\n" {
					t.Errorf("a request above the bound: %d %s", w.Code, w.Body)
				}
				if w := serve(h, newRequest(reviewBody[1:]+" ")); w.Code != http.StatusBadRequest { // read, but not a review
					t.Errorf("a request that fits: %d %s", w.Code, w.Body)
				}
				close(leave)
				_ = sender.Close()
				if got := <-code; got != http.StatusOK {
					t.Errorf("the first request: %d", got)
				}
				if got := inFlight.bytes.Load(); got != others {
					t.Errorf("in the end %d bytes are in flight, not %d", got, others)
				}
			})
		})
	}
}

// TestAContentLengthDoesNotCount: only bytes that have been read do.
func TestAContentLengthDoesNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := NewHandler(allow, nil)
		codes := make(chan int)
		var senders []*io.PipeWriter
		for range 100 {
			body, sender := io.Pipe()
			senders = append(senders, sender)
			r := newRequest("")
			r.Body, r.ContentLength = body, maxBody
			go func() { codes <- serve(h, r).Code }()
		}
		synctest.Wait()
		if w := serve(h, newRequest(reviewBody)); w.Code != http.StatusOK {
			t.Errorf("a request beside them: %d %s", w.Code, w.Body)
		}
		for _, sender := range senders {
			_ = sender.CloseWithError(errBoom)
		}
		for range senders {
			if code := <-codes; code != http.StatusBadRequest {
				t.Errorf("a body that is never sent: %d", code)
			}
		}
	})
}
