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

	"github.com/sakeeper/sakeeper/pkg/keys"
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

// keyCollector exports the keys that are in use at the time of each scrape.
type keyCollector struct {
	current func() *keys.Set
	info    *prometheus.Desc
}

// NewKeyCollector makes a collector of sakeeper_key_info for the keys that current returns.
func NewKeyCollector(current func() *keys.Set) prometheus.Collector {
	return &keyCollector{current: current, info: prometheus.NewDesc("sakeeper_key_info",
		"Always 1; one series per key. use is signing or verification.",
		[]string{"key_id", "algorithm", "use"}, nil)}
}

// Describe implements [prometheus.Collector].
func (c *keyCollector) Describe(out chan<- *prometheus.Desc) { out <- c.info }

// Collect implements [prometheus.Collector].
func (c *keyCollector) Collect(out chan<- prometheus.Metric) {
	set := c.current()
	for _, key := range set.Verification() {
		use := "verification"
		if key.ID() == set.Signing().PublicKey().ID() {
			use = "signing"
		}
		out <- prometheus.MustNewConstMetric(c.info, prometheus.GaugeValue, 1, key.ID(), string(key.Algorithm()), use)
	}
}
