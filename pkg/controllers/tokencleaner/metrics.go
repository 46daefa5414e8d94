package tokencleaner

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Values of the label step.
const (
	stepMark   = "mark"
	stepDelete = "delete"
)

// Values of the label result.
const (
	resultDone    = "done"
	resultDryRun  = "dry_run" // nothing was changed
	resultChanged = "changed" // the object changed or was deleted since the decision
	resultError   = "error"
)

// metrics are the metrics that only this controller has.
type metrics struct {
	steps    *prometheus.CounterVec
	verdicts *prometheus.GaugeVec
	lastPass prometheus.Gauge
}

// newMetrics registers with reg, which may be nil.
func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		steps: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sakeeper_token_clean_ups_total",
			Help: "Unused legacy tokens that were acted on, by step (mark, delete) and result (done, dry_run: nothing was changed, changed: the object did meanwhile, error).",
		}, []string{"step", "result"}),
		verdicts: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "sakeeper_token_clean_up_secrets",
			Help: "Token Secrets by what the last clean-up pass found: unused (to be marked), waiting (marked, and not for long enough) and expired (to be deleted), or else why they stay.",
		}, []string{"verdict"}),
		lastPass: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sakeeper_token_clean_up_last_pass_timestamp_seconds",
			Help: "When the last clean-up pass was completed, in seconds since 1970; 0: there was none yet.",
		}),
	}
	for _, step := range []string{stepMark, stepDelete} {
		for _, result := range []string{resultDone, resultDryRun, resultChanged, resultError} {
			m.steps.WithLabelValues(step, result)
		}
	}
	m.setVerdicts(nil)
	if reg == nil {
		return m, nil
	}
	for _, collector := range []prometheus.Collector{m.steps, m.verdicts, m.lastPass} {
		if err := reg.Register(collector); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *metrics) countStep(step, result string) { m.steps.WithLabelValues(step, result).Inc() }

// setVerdicts sets the number of Secrets by verdict; a verdict without a count is zero.
func (m *metrics) setVerdicts(counts map[verdict]int) {
	for _, v := range verdicts() {
		m.verdicts.WithLabelValues(string(v)).Set(float64(counts[v]))
	}
}

func (m *metrics) completed(at time.Time) { m.lastPass.Set(float64(at.Unix())) }
