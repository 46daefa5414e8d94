package pki

import (
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// ExpiryGauge is the metric of one certificate, the label being "serving" for the certificate that
// the process serves or "ca" for the CA that signs. find returns nil if there is none; it is
// called concurrently.
func ExpiryGauge(certificate string, find func() *x509.Certificate) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name:        "sakeeper_webhook_certificate_expiry_timestamp_seconds",
		Help:        "When a certificate of the webhook expires, in seconds since 1970, by certificate (serving, ca). 0: there is none.",
		ConstLabels: prometheus.Labels{"certificate": certificate},
	}, func() float64 {
		if c := find(); c != nil {
			return float64(c.NotAfter.Unix())
		}
		return 0
	})
}

// CheckLifetime returns an error if the serving certificate c is nil or not valid at now.
func CheckLifetime(c *x509.Certificate, now time.Time) error {
	switch {
	case c == nil:
		return errors.New("there is no serving certificate")
	case now.Before(c.NotBefore):
		return fmt.Errorf("the serving certificate is not valid before %s", c.NotBefore.Format(time.RFC3339))
	case !now.Before(c.NotAfter):
		return fmt.Errorf("the serving certificate expired at %s", c.NotAfter.Format(time.RFC3339))
	default:
		return nil
	}
}
