package kube

import (
	"net/http"
	"sync/atomic"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
)

// ServerClock shows the API server's time, which decides whether tokens and certificates are
// valid: it corrects the local clock by the Date header of responses. It is safe for
// concurrent use.
type ServerClock struct {
	local  clock.PassiveClock
	offset atomic.Int64 // a time.Duration
}

var _ clock.PassiveClock = (*ServerClock)(nil)

// NewServerClock returns a clock that shows the time of local until the first response.
func NewServerClock(local clock.PassiveClock) *ServerClock { return &ServerClock{local: local} }

// FollowServerClock makes every client of config set the clock that it returns, which shows the time of
// local until the first response.
func FollowServerClock(config *rest.Config, local clock.PassiveClock) *ServerClock {
	c := NewServerClock(local)
	config.Wrap(c.Wrap)
	return c
}

// Now implements [clock.PassiveClock].
func (c *ServerClock) Now() time.Time { return c.local.Now().Add(time.Duration(c.offset.Load())) }

// Since implements [clock.PassiveClock].
func (c *ServerClock) Since(t time.Time) time.Duration { return c.Now().Sub(t) }

// Wrap returns a transport that sets the clock by the responses of next, for
// [k8s.io/client-go/rest.Config.Wrap].
func (c *ServerClock) Wrap(next http.RoundTripper) http.RoundTripper { return clockTransport{c, next} }

type clockTransport struct {
	clock *ServerClock
	next  http.RoundTripper
}

// RoundTrip implements [http.RoundTripper].
func (t clockTransport) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := t.next.RoundTrip(request)
	if err != nil {
		return response, err
	}
	if date, err := http.ParseTime(response.Header.Get("Date")); err == nil {
		t.clock.setFromDate(date)
	}
	return response, nil
}

// WrappedRoundTripper lets client-go find the transport below.
func (t clockTransport) WrappedRoundTripper() http.RoundTripper { return t.next }

// clockTolerance is the difference up to which the local clock is not corrected: a Date has
// whole seconds, and the response takes time.
const clockTolerance = 5 * time.Second

// setFromDate corrects the clock by the Date of a response.
func (c *ServerClock) setFromDate(date time.Time) {
	offset := date.Sub(c.local.Now())
	if offset.Abs() < clockTolerance {
		offset = 0
	}
	c.offset.Store(int64(offset))
}
