package process

import (
	"net/http"

	"github.com/sakeeper/sakeeper/pkg/kube"
	"github.com/sakeeper/sakeeper/pkg/kube/rights"
)

// ProbesHandler serves /livez and /readyz, each with its checks.
func ProbesHandler(live, ready []kube.Check) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/livez", kube.Probe(live...))
	mux.Handle("/readyz", kube.Probe(ready...))
	return mux
}

// Ping is a check that passes as long as the process answers.
func Ping() kube.Check {
	return kube.Check{Name: "ping", Probe: func(*http.Request) error { return nil }}
}

// Rights is a check that names missing rights without failing. It is for processes that answer others:
// all replicas lack the same right, and nothing would be answered if all were unready for want of, for
// example, the right to write events.
func Rights(monitor *rights.Monitor) kube.Check {
	return kube.Check{Name: "rights", Warn: true, Probe: func(*http.Request) error { return monitor.Err() }}
}
