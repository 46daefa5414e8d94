package agent

import "github.com/prometheus/client_golang/prometheus"

// register exports the expiry of the token of each file, and what is left of the lifetime of that
// which is the agent's own credential.
func (a *Agent) register(registry prometheus.Registerer) error {
	if registry == nil {
		return nil
	}
	own := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "sakeeper_agent_own_credential_remaining_ratio",
		Help: "What is left of the lifetime of the token in a file that is also the agent's own credential, from 1 to 0; 1: there is no such file. It is renewed at 0.2 at the latest; at 0 the agent cannot recover.",
	}, a.ownCredentialRemaining)
	if err := registry.Register(own); err != nil {
		return err
	}
	return registry.Register(expiries{a, prometheus.NewDesc("sakeeper_agent_token_expiry_timestamp_seconds",
		"When the token in the file expires, in seconds since 1970; 0: there is none yet.", []string{"file"}, nil)})
}

// ownCredentialRemaining returns the share of the lifetime that is left of the agent's own credential.
// As long as this process has not renewed it, its lifetime is not known, and it counts as nothing.
func (a *Agent) ownCredentialRemaining() float64 {
	if a.cfg.OwnCredential == "" {
		return 1
	}
	h, ok := a.state(a.cfg.OwnCredential)
	if !ok {
		return 0
	}
	age := a.stopwatch.Elapsed() - h.requestedAt
	return min(1, max(0, 1-float64(age)/float64(h.validity.Lifetime())))
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
