package webhook

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sakeeper/sakeeper/pkg/webhook/review"
)

// otherPath is the label of requests for paths without a handler.
const otherPath = "other"

type metrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	clients  *prometheus.CounterVec // nil if any client may call
}

// newMetrics registers the server's metrics. The label path is one of those that
// have a handler, or "other"; result is a [review.Result]. Refused clients are counted if
// clients are checked.
func newMetrics(reg prometheus.Registerer, checked bool) (*metrics, error) {
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
	collectors := []prometheus.Collector{m.requests, m.duration}
	if checked {
		m.clients = prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sakeeper_webhook_refused_clients_total",
			Help: "Requests of clients that may not call the webhook, by reason (no-certificate, untrusted-certificate, other-name).",
		}, []string{"reason"})
		for _, reason := range []string{noCertificate, untrustedCertificate, otherName} {
			m.clients.WithLabelValues(reason) // so that the first one is an increase
		}
		collectors = append(collectors, m.clients)
	}
	for _, c := range collectors {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *metrics) observe(path string, result review.Result, took time.Duration) {
	m.requests.WithLabelValues(path, string(result)).Inc()
	m.duration.WithLabelValues(path, string(result)).Observe(took.Seconds())
}

// refuse counts a client that may not call because of err.
func (m *metrics) refuse(err error) { m.clients.WithLabelValues(refusedBecause(err)).Inc() }
