package rights

import (
	"context"
	"net/http"
	"strings"
)

type optional struct{}

// Optional returns a context for requests that the process can do without: that one of them is refused
// is no missing right.
func Optional(ctx context.Context) context.Context {
	return context.WithValue(ctx, optional{}, true)
}

func (m *Monitor) wrap(next http.RoundTripper) http.RoundTripper { return transport{m, next} }

// transport tells the monitor of responses with the code 403.
type transport struct {
	monitor *Monitor
	next    http.RoundTripper
}

// RoundTrip implements [http.RoundTripper].
func (t transport) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := t.next.RoundTrip(request)
	if err == nil && response.StatusCode == http.StatusForbidden && request.Context().Value(optional{}) == nil {
		if right, target, ok := parse(t.monitor.base, request); ok {
			t.monitor.refused(right, target)
			// Of an object that does not exist, an apply needs the right to create too. A subresource, such
			// as a status, is never created.
			if isApply(request) && right.Subresource == "" {
				right.Verb = "create"
				t.monitor.refused(right, Target{Namespace: target.Namespace})
			}
		}
	}
	return response, err
}

// isApply returns true for a server-side apply, in each of its encodings.
func isApply(request *http.Request) bool {
	return request.Method == http.MethodPatch && strings.HasPrefix(request.Header.Get("Content-Type"), "application/apply-patch+")
}

// WrappedRoundTripper lets client-go find the transport below.
func (t transport) WrappedRoundTripper() http.RoundTripper { return t.next }
