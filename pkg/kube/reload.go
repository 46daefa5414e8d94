package kube

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sakeeper/sakeeper/pkg/internal/metrics"
)

// ReloadFailures is the counter of changed files that could not be used, by source. Every
// series exists from the start, so that the first failure is an increase.
type ReloadFailures struct{ failures *prometheus.CounterVec }

// NewReloadFailures registers the counter for those sources, for example "keys" and "ca". A nil
// registerer exports nothing.
func NewReloadFailures(registerer prometheus.Registerer, sources ...string) ReloadFailures {
	failures := metrics.Shared(registerer, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "sakeeper_reload_failures_total",
		Help: "Changed files that could not be used, by source (" + strings.Join(sources, ", ") + "); the last good ones stay in use.",
	}, []string{"source"}))
	for _, source := range sources {
		failures.WithLabelValues(source)
	}
	return ReloadFailures{failures}
}

// Count returns a function for the OnError of a loader. It counts a failure of source, and
// then calls report, which may be nil.
func (r ReloadFailures) Count(source string, report func(error)) func(error) {
	count := r.failures.WithLabelValues(source)
	return func(err error) {
		count.Inc()
		if report != nil {
			report(err)
		}
	}
}
