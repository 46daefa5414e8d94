package tokeninventory

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the counts of the last pass. A collector of their own exports either all counts of a
// pass or none.
type metrics struct {
	mu     sync.Mutex
	counts map[labels]int
	// completed is when the last pass began in which everything could be read; zero if there is none.
	completed time.Time
}

const (
	tokensName = "sakeeper_long_lived_tokens"
	tokensHelp = "Tokens in Secrets by kind (legacy, bound, managed), verdict (such as in use, or unknown) and reach of their ServiceAccount (such as cluster-admin, or unknown), as kubectl sakeeper tokens has them. Absent while not all Secrets can be read."

	completedName = "sakeeper_token_inventory_last_pass_timestamp_seconds"
	completedHelp = "When the last count of tokens began for which everything could be read, in seconds since 1970. Absent if there was none."
)

func tokensDesc() *prometheus.Desc {
	return prometheus.NewDesc(tokensName, tokensHelp, []string{"kind", "verdict", "reach"}, nil)
}

func completedDesc() *prometheus.Desc {
	return prometheus.NewDesc(completedName, completedHelp, nil, nil)
}

// Describe implements [prometheus.Collector].
func (m *metrics) Describe(descriptions chan<- *prometheus.Desc) {
	descriptions <- tokensDesc()
	descriptions <- completedDesc()
}

// Collect implements [prometheus.Collector].
func (m *metrics) Collect(collected chan<- prometheus.Metric) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for l, n := range m.counts {
		collected <- prometheus.MustNewConstMetric(tokensDesc(), prometheus.GaugeValue, float64(n), string(l.kind), l.verdict, l.reach)
	}
	if !m.completed.IsZero() {
		collected <- prometheus.MustNewConstMetric(completedDesc(), prometheus.GaugeValue, float64(m.completed.Unix()))
	}
}

// set replaces the counts by those of the pass that began at a time. complete says whether everything
// could be read.
func (m *metrics) set(counts map[labels]int, began time.Time, complete bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.counts = counts
	if complete {
		m.completed = began
	}
}

// clear removes the counts.
func (m *metrics) clear() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.counts = nil
}
