package workqueue

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sakeeper/sakeeper/pkg/internal/metrics"
)

// queueMetrics are shared by all queues with one registerer.
type queueMetrics struct {
	duration *prometheus.HistogramVec
	failing  *prometheus.GaugeVec
	panics   *prometheus.CounterVec
	ready    *prometheus.HistogramVec
}

const labelController = "controller"

// newMetrics registers the metrics of work queues, or returns those that are registered
// already. The label controller is the name of a queue; result is "success" or "error".
func newMetrics(reg prometheus.Registerer) *queueMetrics {
	return &queueMetrics{
		duration: metrics.Shared(reg, prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "sakeeper_sync_duration_seconds",
			Help:    "Time to sync one key, by controller and result.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 8), // 1 ms to 16 s
		}, []string{labelController, "result"})),
		failing: metrics.Shared(reg, prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "sakeeper_failing_keys",
			Help: "Keys whose last sync failed and that are being retried, by controller.",
		}, []string{labelController})),
		panics: metrics.Shared(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sakeeper_sync_panics_total",
			Help: "Syncs that ended in a panic, by controller.",
		}, []string{labelController})),
		ready: metrics.Shared(reg, prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "sakeeper_creation_to_ready_seconds",
			Help:    "Time from the creation of a namespace or token Secret, which API servers note in whole seconds, until it has what the controller gives it, by controller. Objects from before its start do not count.",
			Buckets: []float64{0.25, 0.5, 1, 1.5, 2, 3, 5, 10, 30, 60, 300},
		}, []string{labelController})),
	}
}

func (m *queueMetrics) observe(name string, took time.Duration, err error) {
	result := "success"
	if err != nil {
		result = "error"
	}
	m.duration.WithLabelValues(name, result).Observe(took.Seconds())
}

// begin makes the series of a queue, so that the first panic is an increase.
func (m *queueMetrics) begin(name string) {
	m.panics.WithLabelValues(name)
}

func (m *queueMetrics) setFailing(name string, n int) {
	m.failing.WithLabelValues(name).Set(float64(n))
}

func (m *queueMetrics) panicked(name string) {
	m.panics.WithLabelValues(name).Inc()
}

func (m *queueMetrics) observeReady(name string, took time.Duration) {
	m.ready.WithLabelValues(name).Observe(max(0, took).Seconds())
}
