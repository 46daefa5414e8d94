package tokensecret

import (
	"github.com/prometheus/client_golang/prometheus"

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
