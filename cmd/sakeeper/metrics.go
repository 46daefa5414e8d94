package main

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sakeeper/sakeeper/pkg/keys"
)

// keyCollector exports which keys are in use, as they are at each scrape.
type keyCollector struct {
	current func() *keys.Set
	info    *prometheus.Desc
}

func newKeyCollector(current func() *keys.Set) prometheus.Collector {
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

// newReloadFailures counts, by source, the files that turned bad. All series are there
// from the start, so that the first failure is an increase.
func newReloadFailures(registry prometheus.Registerer, sources ...string) *prometheus.CounterVec {
	failures := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "sakeeper_reload_failures_total",
		Help: "Changed files that could not be used, by source (" + strings.Join(sources, ", ") + "); the last good ones stay in use.",
	}, []string{"source"})
	for _, source := range sources {
		failures.WithLabelValues(source)
	}
	registry.MustRegister(failures)
	return failures
}
