package process

import (
	"net/http"

	"github.com/sakeeper/sakeeper/pkg/kube"
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
