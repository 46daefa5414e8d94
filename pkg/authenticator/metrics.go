package authenticator

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics count reviews by result (accepted, refused, unavailable, malformed). A nil one
// counts nothing.
type Metrics struct {
	reviews  *prometheus.CounterVec
	duration prometheus.Histogram
}

// NewMetrics registers them.
func NewMetrics(registry prometheus.Registerer) *Metrics {
	m := &Metrics{
		reviews: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sakeeper_authenticator_reviews_total",
			Help: "Token reviews, by result: accepted, refused, unavailable (the API server could not be asked), malformed.",
		}, []string{"result"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "sakeeper_authenticator_review_duration_seconds",
			Help:    "How long token reviews took.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 9), // 0.1 ms to 6.5 s
		}),
	}
	registry.MustRegister(m.reviews, m.duration)
	return m
}

func (m *Metrics) observe(result string, took time.Duration) {
	if m == nil {
		return
	}
	m.reviews.WithLabelValues(result).Inc()
	m.duration.Observe(took.Seconds())
}
