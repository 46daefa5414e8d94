package kube

import (
	"context"
	"io"
	"net/http"
	"sync"
	"time"
)

// LeaseGuard lets the requests of a leader through only while its lease is valid. Give it to an
// [Election], and [LeaseGuard.Wrap] to the client configurations of the work. A context is not
// enough: a process that was frozen may send a request before its timers have run. The zero
// value lets everything through. Its methods may be called concurrently.
type LeaseGuard struct {
	mu sync.Mutex
	// on: the work has begun and has not ended.
	on, lost bool
	duration time.Duration
	renewed  time.Time // when the request was sent that renewed the lease last
	// term ends when the lease is not valid any more.
	term  context.Context //nolint:containedctx // a state that ends, not a request
	end   context.CancelFunc
	timer *time.Timer
}

// Err returns [ErrLeaseLost] if requests are refused, and otherwise nil.
func (g *LeaseGuard) Err() error {
	_, err := g.current()
	return err
}

// Wrap is for [k8s.io/client-go/rest.Config.Wrap]. While the work runs and the lease is not
// valid, requests fail with [ErrLeaseLost], also those that were sent before.
func (g *LeaseGuard) Wrap(next http.RoundTripper) http.RoundTripper { return guarded{g, next} }

// current returns the term, nil while no work runs.
func (g *LeaseGuard) current() (context.Context, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.on {
		return nil, nil //nolint:nilnil // no term and no error: nothing is guarded
	}
	if g.lost || g.age() >= g.duration {
		g.end()
		return nil, ErrLeaseLost
	}
	return g.term, nil
}

// age is the time since the lease was renewed, also by the wall clock: the monotonic clock
// stops while the machine is suspended.
func (g *LeaseGuard) age() time.Duration {
	now := time.Now()
	return max(now.Sub(g.renewed), now.Round(0).Sub(g.renewed.Round(0)))
}

// renew notes that a request that was sent at that time renewed the lease for d.
func (g *LeaseGuard) renew(at time.Time, d time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.renewed, g.duration = at, d
	if g.term == nil || g.term.Err() != nil {
		g.term, g.end = context.WithCancel(context.Background())
	}
	if g.timer != nil {
		g.timer.Stop()
	}
	g.timer = time.AfterFunc(d-g.age(), g.end)
}

// begin is called when the work begins, after the first renewal.
func (g *LeaseGuard) begin() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.on = true
}

// lose refuses requests until finish.
func (g *LeaseGuard) lose() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.lost = true
	if g.end != nil {
		g.end()
	}
}

// finish is called when the work has ended. What the process sends then, such as its last
// events, does not need the lease.
func (g *LeaseGuard) finish() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.on = false
	if g.timer != nil {
		g.timer.Stop()
	}
}

type guarded struct {
	guard *LeaseGuard
	next  http.RoundTripper
}

// RoundTrip implements [http.RoundTripper].
func (t guarded) RoundTrip(request *http.Request) (*http.Response, error) {
	term, err := t.guard.current()
	if err != nil {
		if request.Body != nil {
			_ = request.Body.Close() // a RoundTripper must close it; there is nothing to be lost
		}
		return nil, err
	}
	if term == nil {
		return t.next.RoundTrip(request)
	}
	ctx, cancel := context.WithCancelCause(request.Context())
	detach := context.AfterFunc(term, func() { cancel(ErrLeaseLost) })
	done := func() {
		detach()
		cancel(nil)
	}
	response, err := t.next.RoundTrip(request.WithContext(ctx))
	if err != nil {
		if context.Cause(ctx) == ErrLeaseLost { //nolint:errorlint // the very value that was given above
			err = ErrLeaseLost
		}
		done()
		return nil, err
	}
	response.Body = guardedBody{response.Body, done}
	return response, nil
}

// WrappedRoundTripper lets client-go find the transport.
func (t guarded) WrappedRoundTripper() http.RoundTripper { return t.next }

// guardedBody calls done when it is closed.
type guardedBody struct {
	io.ReadCloser

	done func()
}

func (b guardedBody) Close() error {
	defer b.done()
	return b.ReadCloser.Close()
}
