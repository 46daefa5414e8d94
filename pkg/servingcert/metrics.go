package servingcert

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	secretWrites *prometheus.CounterVec
	bundleWrites *prometheus.CounterVec
}

// newMetrics registers the controller's metrics.
func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		secretWrites: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sakeeper_webhook_certificate_writes_total",
			Help: "Changes that this process made to the certificate Secret, by action (begin, issue, stage, promote, prune).",
		}, []string{"action"}),
		bundleWrites: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sakeeper_webhook_bundle_writes_total",
			Help: "Times that this process wrote the caBundle of a webhook configuration, by its kind.",
		}, []string{"kind"}),
	}
	for _, c := range []prometheus.Collector{m.secretWrites, m.bundleWrites} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
