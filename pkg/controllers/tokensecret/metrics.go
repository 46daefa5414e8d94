package tokensecret

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/sakeeper/sakeeper/pkg/cache"
)

// What the label key_id is for tokens of no known key.
const (
	keyNone    = "none"    // there is no token yet
	keyUnknown = "unknown" // the Secret's own token, which no known key verifies
	keyForeign = "foreign" // something else that somebody put there
)

// register exports how many Secrets hang on which key, as it is at each scrape: an
// old key can go when its number is zero.
func (c *Controller) register(registry prometheus.Registerer) error {
	if registry == nil {
		return nil
	}
	if err := registry.Register(c.dangling.gauge); err != nil {
		return err
	}
	return registry.Register(keyCounter{c, prometheus.NewDesc("sakeeper_token_secrets",
		"Token Secrets by the id of the key that verifies their token; none: there is no token yet, unknown: no known key does, foreign: not a legacy token for this Secret.",
		[]string{"key_id"}, nil)})
}

type keyCounter struct {
	controller *Controller
	secrets    *prometheus.Desc
}

// Describe implements [prometheus.Collector].
func (k keyCounter) Describe(out chan<- *prometheus.Desc) { out <- k.secrets }

// Collect implements [prometheus.Collector].
func (k keyCounter) Collect(out chan<- prometheus.Metric) {
	set := k.controller.cfg.Keys()
	counts := map[string]int{keyNone: 0, keyUnknown: 0, keyForeign: 0}
	for _, key := range set.Verification() {
		counts[key.ID()] = 0
	}
	for _, obj := range k.controller.cfg.Secrets.GetStore().List() {
		secret, ok := obj.(*cache.TokenSecret)
		if !ok {
			continue
		}
		keyID := k.controller.verifiedBy(secret, set)
		switch {
		case secret.Unfilled != nil:
			keyID = keyNone
		case !secret.Token.Own:
			keyID = keyForeign
		case keyID == "":
			keyID = keyUnknown
		}
		counts[keyID]++
	}
	for keyID, n := range counts {
		out <- prometheus.MustNewConstMetric(k.secrets, prometheus.GaugeValue, float64(n), keyID)
	}
}

// dangling counts, by account, references that stay although there is no Secret of
// that name.
type dangling struct {
	gauge prometheus.Gauge

	mu        sync.Mutex
	byAccount map[toolscache.ObjectName]int
}

func newDangling() *dangling {
	return &dangling{byAccount: map[toolscache.ObjectName]int{}, gauge: prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "sakeeper_dangling_references",
		Help: "Names in the secrets of ServiceAccounts of which there is no Secret. They stay: somebody may mean to create it.",
	})}
}

func (d *dangling) of(account toolscache.ObjectName) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.byAccount[account]
}

func (d *dangling) set(account toolscache.ObjectName, n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.gauge.Add(float64(n - d.byAccount[account]))
	if n == 0 {
		delete(d.byAccount, account)
		return
	}
	d.byAccount[account] = n
}
