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
	ready    *prometheus.HistogramVec
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
		ready: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "sakeeper_creation_to_ready_seconds",
			Help:    "Time from the creation of a namespace or token Secret, which API servers note in whole seconds, until it has what the controller gives it, by controller. Objects from before its start do not count.",
			Buckets: []float64{0.25, 0.5, 1, 1.5, 2, 3, 5, 10, 30, 60, 300},
		}, []string{labelController}),
	}
	reg.MustRegister(m.duration, m.failing, m.panics, m.ready)
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

// begin makes the series of a loop, so that the first panic is an increase.
func (m *Metrics) begin(name string) {
	if m != nil {
		m.panics.WithLabelValues(name)
	}
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

func (m *Metrics) observeReady(name string, took time.Duration) {
	if m != nil {
		m.ready.WithLabelValues(name).Observe(max(0, took).Seconds())
	}
}
