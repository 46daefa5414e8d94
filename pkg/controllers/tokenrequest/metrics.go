package tokenrequest

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/cache"
)

// The values of the label state.
const (
	stateValid    = "valid"    // its token needs nothing, or is being renewed in time
	statePending  = "pending"  // it has no token yet
	stateFailing  = "failing"  // it cannot be filled or renewed: its annotation about the problem says why
	stateExpired  = "expired"  // its token has expired
	stateUnserved = "unserved" // its namespace is not allowed
)

// register exports the state of the Secrets, which each scrape reads from the cache.
func (c *Controller) register(registry prometheus.Registerer) error {
	if registry == nil {
		return nil
	}
	return registry.Register(collector{
		c,
		prometheus.NewDesc("sakeeper_managed_tokens",
			"Secrets that ask for a token that is renewed, by state (valid, pending, failing, expired, unserved).", []string{"state"}, nil),
		prometheus.NewDesc("sakeeper_managed_token_next_expiry_seconds",
			"Time until the first of the tokens that are kept fresh expires; negative: one has expired. There is none without tokens.", nil, nil),
	})
}

type collector struct {
	controller     *Controller
	tokens, expiry *prometheus.Desc
}

// Describe implements [prometheus.Collector].
func (m collector) Describe(out chan<- *prometheus.Desc) { out <- m.tokens; out <- m.expiry }

// Collect implements [prometheus.Collector].
func (m collector) Collect(out chan<- prometheus.Metric) {
	counts := map[string]int{stateValid: 0, statePending: 0, stateFailing: 0, stateExpired: 0, stateUnserved: 0}
	next, found := 0.0, false
	for _, obj := range m.controller.cfg.Secrets.GetStore().List() {
		secret, ok := obj.(*cache.ManagedSecret)
		if !ok || !secret.Managed() {
			continue
		}
		s := m.controller.gather(secret)
		label := stateOf(s, decide(s), !m.controller.notes.get(secret.UID).failingSince.IsZero())
		counts[label]++
		term, filled := resultsOn(s.secret).term()
		if !filled || label == stateUnserved {
			continue
		}
		if left := term.Expires.Sub(s.now).Seconds(); !found || left < next {
			next, found = left, true
		}
	}
	for label, n := range counts {
		out <- prometheus.MustNewConstMetric(m.tokens, prometheus.GaugeValue, float64(n), label)
	}
	if found {
		out <- prometheus.MustNewConstMetric(m.expiry, prometheus.GaugeValue, next)
	}
}

func stateOf(s state, d decision, failing bool) string {
	term, filled := resultsOn(s.secret).term()
	switch {
	case d.problem.reason == api.ReasonTokenNotServed:
		return stateUnserved
	case filled && !s.now.Before(term.Expires):
		return stateExpired
	case d.action == refuse || failing:
		return stateFailing
	case !filled:
		return statePending
	default:
		return stateValid
	}
}
