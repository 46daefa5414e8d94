package kube

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

type roundTripperFunc func(*http.Request) (*http.Response, error)

func (f roundTripperFunc) RoundTrip(request *http.Request) (*http.Response, error) { return f(request) }

// slowServer answers after d, or not at all if the request ends before.
func slowServer(d time.Duration) http.RoundTripper {
	return roundTripperFunc(func(request *http.Request) (*http.Response, error) {
		select {
		case <-time.After(d):
			return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader("ok"))}, nil
		case <-request.Context().Done():
			return nil, request.Context().Err()
		}
	})
}

func TestLeaseGuard(t *testing.T) {
	const lease = 15 * time.Second
	cases := map[string]struct {
		in   func(g *LeaseGuard)
		took time.Duration // of the request
		want error
	}{
		"no work runs":                    {in: func(*LeaseGuard) {}},
		"the work begins":                 {in: func(g *LeaseGuard) { g.renew(time.Now(), lease); g.begin() }},
		"the lease was renewed long ago":  {in: func(g *LeaseGuard) { g.renew(time.Now().Add(-lease), lease); g.begin() }, want: ErrLeaseLost},
		"the lease is valid for a moment": {in: func(g *LeaseGuard) { g.renew(time.Now().Add(1-lease), lease); g.begin() }},
		"it runs out during the request":  {in: func(g *LeaseGuard) { g.renew(time.Now(), lease); g.begin() }, took: lease + 1, want: ErrLeaseLost},
		"it is renewed during the request": {in: func(g *LeaseGuard) {
			g.renew(time.Now(), lease)
			g.begin()
			time.AfterFunc(lease-1, func() { g.renew(time.Now(), lease) })
		}, took: lease + 1},
		"it is renewed after it ran out": {in: func(g *LeaseGuard) {
			g.renew(time.Now(), lease)
			g.begin()
			time.Sleep(time.Hour)
			g.renew(time.Now(), lease)
		}},
		"another process holds it":            {in: func(g *LeaseGuard) { g.renew(time.Now(), lease); g.begin(); g.lose() }, want: ErrLeaseLost},
		"it was lost, and a renewal was late": {in: func(g *LeaseGuard) { g.begin(); g.lose(); g.renew(time.Now(), lease) }, want: ErrLeaseLost},
		"the work has ended":                  {in: func(g *LeaseGuard) { g.renew(time.Now(), lease); g.begin(); g.lose(); g.finish() }},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				guard := &LeaseGuard{}
				tc.in(guard)
				request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://server", strings.NewReader("body"))
				if err != nil {
					t.Fatal(err)
				}
				response, err := guard.Wrap(slowServer(tc.took)).RoundTrip(request)
				if !errors.Is(err, tc.want) {
					t.Errorf("error %v, want %v", err, tc.want)
				}
				if err == nil {
					_ = response.Body.Close()
				}
				guard.finish() // its timer
			})
		})
	}
}

// TestLeaseGuardFollowsTheRequest: the context of a request ends it, and is not taken for the end
// of the lease.
func TestLeaseGuardFollowsTheRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		guard := &LeaseGuard{}
		guard.renew(time.Now(), time.Hour)
		guard.begin()
		defer guard.finish()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://server", nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := guard.Wrap(slowServer(time.Minute)).RoundTrip(request)
		if err == nil {
			_ = response.Body.Close()
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
	})
}
