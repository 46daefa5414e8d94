package authenticator

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	sharedmetrics "github.com/sakeeper/sakeeper/pkg/internal/metrics"
)

// metrics count reviews. The label result is accepted, refused, unavailable or malformed.
type metrics struct {
	reviews  *prometheus.CounterVec
	duration prometheus.Histogram
}

func newMetrics(registerer prometheus.Registerer) *metrics {
	return &metrics{
		reviews: sharedmetrics.Shared(registerer, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sakeeper_authenticator_reviews_total",
			Help: "Token reviews, by result: accepted, refused, unavailable (the API server could not be asked), malformed.",
		}, []string{"result"})),
		duration: sharedmetrics.Shared(registerer, prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "sakeeper_authenticator_review_duration_seconds",
			Help:    "How long token reviews took.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 9), // 0.1 ms to 6.5 s
		})),
	}
}

func (m *metrics) observe(result string, took time.Duration) {
	m.reviews.WithLabelValues(result).Inc()
	m.duration.Observe(took.Seconds())
}
