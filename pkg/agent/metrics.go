package agent

import "github.com/prometheus/client_golang/prometheus"

// register exports the expiry of the token of each file.
func (a *Agent) register(registry prometheus.Registerer) error {
	if registry == nil {
		return nil
	}
	return registry.Register(expiries{a, prometheus.NewDesc("sakeeper_agent_token_expiry_timestamp_seconds",
		"When the token in the file expires, in seconds since 1970; 0: there is none yet.", []string{"file"}, nil)})
}

// expiries is a collector of the expiry of each token.
type expiries struct {
	agent *Agent
	desc  *prometheus.Desc
}

// Describe implements [prometheus.Collector].
func (e expiries) Describe(out chan<- *prometheus.Desc) { out <- e.desc }

// Collect implements [prometheus.Collector].
func (e expiries) Collect(out chan<- prometheus.Metric) {
	for file := range e.agent.tokens {
		var at float64
		if h, ok := e.agent.state(file); ok {
			at = float64(h.validity.Expires.Unix())
		}
		out <- prometheus.MustNewConstMetric(e.desc, prometheus.GaugeValue, at, file)
	}
}
