package webhook

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// result is what became of a request.
type result string

const (
	// allowed and denied are answers of a handler.
	allowed result = "allowed"
	denied  result = "denied"
	// failed: the handler returned an error, also that time was up.
	failed result = "error"
	// panicked: the handler did.
	panicked result = "panic"
	// refused: there was no review to hand to a handler.
	refused result = "refused"
)

// otherPath is the label of requests for paths that nobody handles.
const otherPath = "other"

type metrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
}

// newMetrics registers the server's metrics. The label path is one of those that
// have a handler, or "other"; result is one of the constants above.
func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	labels := []string{"path", "result"}
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sakeeper_webhook_requests_total",
			Help: "Requests that the webhook has answered, by path and result (allowed, denied, error, panic, refused).",
		}, labels),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "sakeeper_webhook_request_duration_seconds",
			Help:    "Time from the header of a request to its answer, by path and result.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14), // 0.5 ms to 4 s
		}, labels),
	}
	for _, c := range []prometheus.Collector{m.requests, m.duration} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *metrics) observe(path string, r result, took time.Duration) {
	m.requests.WithLabelValues(path, string(r)).Inc()
	m.duration.WithLabelValues(path, string(r)).Observe(took.Seconds())
}
