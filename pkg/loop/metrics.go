package loop

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are shared by all loops of a process. A nil *Metrics records nothing.
type Metrics struct {
	duration *prometheus.HistogramVec
	failing  *prometheus.GaugeVec
	panics   *prometheus.CounterVec
}

const labelController = "controller"

// NewMetrics registers the loops' metrics. The label controller is a loop's
// name; result is "success" or "error".
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "sakeeper_sync_duration_seconds",
			Help:    "Time to sync one key, by controller and result.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 8), // 1 ms to 16 s
		}, []string{labelController, "result"}),
		failing: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "sakeeper_failing_keys",
			Help: "Keys whose last sync failed and that are being retried, by controller.",
		}, []string{labelController}),
		panics: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sakeeper_sync_panics_total",
			Help: "Syncs that ended in a panic, by controller.",
		}, []string{labelController}),
	}
	reg.MustRegister(m.duration, m.failing, m.panics)
	return m
}

func (m *Metrics) observe(name string, took time.Duration, err error) {
	if m == nil {
		return
	}
	result := "success"
	if err != nil {
		result = "error"
	}
	m.duration.WithLabelValues(name, result).Observe(took.Seconds())
}

func (m *Metrics) setFailing(name string, n int) {
	if m != nil {
		m.failing.WithLabelValues(name).Set(float64(n))
	}
}

func (m *Metrics) panicked(name string) {
	if m != nil {
		m.panics.WithLabelValues(name).Inc()
	}
}
