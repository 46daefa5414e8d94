package kube

import (
	"net/http"
	"sync/atomic"
	"time"

	"k8s.io/utils/clock"
)

// ServerClock tells the time as the API server does, by whose clock tokens and certificates are judged: it
// corrects the local clock by the Date of answers. It is safe for concurrent use.
type ServerClock struct {
	local  clock.PassiveClock
	offset atomic.Int64 // a time.Duration
}

var _ clock.PassiveClock = (*ServerClock)(nil)

// NewServerClock makes a clock that shows local until it has seen an answer.
func NewServerClock(local clock.PassiveClock) *ServerClock { return &ServerClock{local: local} }

// Now implements [clock.PassiveClock].
func (c *ServerClock) Now() time.Time { return c.local.Now().Add(time.Duration(c.offset.Load())) }

// Since implements [clock.PassiveClock].
func (c *ServerClock) Since(t time.Time) time.Duration { return c.Now().Sub(t) }

// Wrap makes a transport whose answers set the clock.
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

// slack is how far the local clock may be off before it is corrected: a Date has
// seconds, and takes its time to come.
const clockTolerance = 5 * time.Second

func (c *ServerClock) setFromDate(date time.Time) {
	offset := date.Sub(c.local.Now())
	if offset.Abs() < clockTolerance {
		offset = 0
	}
	c.offset.Store(int64(offset))
}
