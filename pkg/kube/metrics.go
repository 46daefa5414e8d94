package kube

import (
	"net/http"
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/component-base/metrics/legacyregistry"

	// client-go's own metrics (requests, leader election, work queues) come into
	// the legacy registry by import only: client-go has one hook per process.
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
)

// MetricsHandler serves the metrics of registry together with those of the Go
// runtime, the process, and client-go, under their standard names.
func MetricsHandler(registry *prometheus.Registry) http.Handler {
	return promhttp.HandlerFor(prometheus.Gatherers{registry, legacyregistry.DefaultGatherer},
		promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
}

// RegisterBuildInfo exports version as the label of a gauge that is always 1.
func RegisterBuildInfo(registry prometheus.Registerer, version string) {
	registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name:        "sakeeper_build_info",
		Help:        "Always 1; the labels say which build this is.",
		ConstLabels: prometheus.Labels{"version": version, "go_version": runtime.Version()},
	}, func() float64 { return 1 }))
}
