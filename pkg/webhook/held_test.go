package webhook

import (
	"context"
	"io"
	"net/http"
	"testing"
	"testing/synctest"

	admissionv1 "k8s.io/api/admission/v1"
)

// TestMemoryIsBounded has all but two reviews' worth held by others. A request counts
// while it is read and while it is answered, and not afterwards.
func TestMemoryIsBounded(t *testing.T) {
	for name, ends := range map[string]bool{"while it is read": false, "while it is answered": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				leave := make(chan struct{})
				s, _ := newServer(t, func(context.Context, *admissionv1.AdmissionRequest) (*admissionv1.AdmissionResponse, error) {
					<-leave
					return &admissionv1.AdmissionResponse{Allowed: true}, nil
				})
				const others = maxHeld - 2*int64(len(review))
				s.held.Store(others)
				body, sender := io.Pipe()
				r := newRequest("")
				r.Body, r.ContentLength = body, -1
				code := make(chan int)
				go func() { code <- serve(s, r).Code }()
				go func() {
					_, _ = sender.Write([]byte(review))
					if ends {
						_ = sender.Close()
					}
				}()
				synctest.Wait()
				if w := serve(s, newRequest(review+"{}")); w.Code != http.StatusServiceUnavailable || w.Body.String() != errHeld.Error()+"\n" {
					t.Errorf("one that is over it: %d %s", w.Code, w.Body)
				}
				if w := serve(s, newRequest(review[1:]+" ")); w.Code != http.StatusBadRequest { // read, and found to be no review
					t.Errorf("one that fits: %d %s", w.Code, w.Body)
				}
				close(leave)
				_ = sender.Close()
				if got := <-code; got != http.StatusOK {
					t.Errorf("the first: %d", got)
				}
				if got := s.held.Load(); got != others {
					t.Errorf("in the end %d bytes are held, not %d", got, others)
				}
			})
		})
	}
}

// TestWhatIsAnnouncedDoesNotCount: nothing has come of it.
func TestWhatIsAnnouncedDoesNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := newServer(t, allow)
		answers := make(chan int)
		var senders []*io.PipeWriter
		for range 100 {
			body, sender := io.Pipe()
			senders = append(senders, sender)
			r := newRequest("")
			r.Body, r.ContentLength = body, maxBody
			go func() { answers <- serve(s, r).Code }()
		}
		synctest.Wait()
		if w := serve(s, newRequest(review)); w.Code != http.StatusOK {
			t.Errorf("beside them: %d %s", w.Code, w.Body)
		}
		for _, sender := range senders {
			_ = sender.CloseWithError(errBoom)
		}
		for range senders {
			if code := <-answers; code != http.StatusBadRequest {
				t.Errorf("a body that does not come: %d", code)
			}
		}
	})
}
