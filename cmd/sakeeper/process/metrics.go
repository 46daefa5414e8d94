package process

import (
	"net/http"
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/component-base/metrics/legacyregistry"

	// The import alone registers client-go's own metrics (requests, leader election, work
	// queues) in the legacy registry: client-go has one hook per process.
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
)

// NewRegistry makes the registry of a process, with a gauge that shows the version.
func NewRegistry(version string) *prometheus.Registry {
	registry := prometheus.NewRegistry()
	registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name:        "sakeeper_build_info",
		Help:        "Always 1; the labels say which build this is.",
		ConstLabels: prometheus.Labels{"version": version, "go_version": runtime.Version()},
	}, func() float64 { return 1 }))
	return registry
}

// MetricsHandler serves at /metrics the metrics of registry together with those of the Go
// runtime, the process and client-go, under their standard names.
func MetricsHandler(registry *prometheus.Registry) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(prometheus.Gatherers{registry, legacyregistry.DefaultGatherer},
		promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}))
	return mux
}
