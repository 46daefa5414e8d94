package keys

import "github.com/prometheus/client_golang/prometheus"

// collector exports which keys are in use, as they are at each scrape.
type collector struct {
	current func() *Set
	info    *prometheus.Desc
}

// NewCollector exports the metric sakeeper_key_info: the ids of the keys that current returns, with
// their algorithms and whether they sign.
func NewCollector(current func() *Set) prometheus.Collector {
	return &collector{current: current, info: prometheus.NewDesc("sakeeper_key_info",
		"Always 1; one series per key. use is signing or verification.",
		[]string{"key_id", "algorithm", "use"}, nil)}
}

// Describe implements [prometheus.Collector].
func (c *collector) Describe(out chan<- *prometheus.Desc) { out <- c.info }

// Collect implements [prometheus.Collector].
func (c *collector) Collect(out chan<- prometheus.Metric) {
	set := c.current()
	for _, key := range set.Verification() {
		use := "verification"
		if key.ID() == set.Signing().PublicKey().ID() {
			use = "signing"
		}
		out <- prometheus.MustNewConstMetric(c.info, prometheus.GaugeValue, 1, key.ID(), string(key.Algorithm()), use)
	}
}
