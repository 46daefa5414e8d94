package tokensecret

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sakeeper/sakeeper/pkg/cache"
)

// Values of the label key_id for tokens that no known key verifies: none of the controllers, and none
// that the API server publishes.
const (
	keyNone    = "none"    // there is no token yet
	keyUnknown = "unknown" // a token that was made for this Secret
	keyForeign = "foreign" // a token that was not made for this Secret
)

// register exports how many Secrets depend on each key, computed at each scrape. A key with no
// Secrets is no longer needed for them.
func (c *Controller) register(registerer prometheus.Registerer) error {
	if registerer == nil {
		return nil
	}
	return registerer.Register(keyCounter{c, prometheus.NewDesc("sakeeper_token_secrets",
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
	set := k.controller.known()
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
