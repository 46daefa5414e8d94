package certfiles

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/internal/filewatch"
	"github.com/sakeeper/sakeeper/pkg/servingcert/pki"
)

// Config names the files of a certificate; all of it is required.
type Config struct {
	// CertFile holds the certificate and what it chains to, KeyFile its private key.
	CertFile, KeyFile string
	Clock             clock.PassiveClock
	// Registerer gets the metric of the certificate's expiry.
	Registerer prometheus.Registerer
}

// Files serves a certificate from files. It is safe for concurrent use.
type Files struct {
	cfg   Config
	value *filewatch.Value[*tls.Certificate]
}

// New fails when the files cannot be used now. A file that turns bad later leaves
// the last good certificate in place.
func New(cfg Config) (*Files, error) {
	if cfg.CertFile == "" || cfg.KeyFile == "" || cfg.Clock == nil || cfg.Registerer == nil {
		return nil, errors.New("certfiles: CertFile, KeyFile, Clock and Registerer are required")
	}
	f := &Files{cfg: cfg}
	var err error
	f.value, err = filewatch.New(filewatch.Config[*tls.Certificate]{
		What:  "serving certificate",
		Files: []string{cfg.CertFile, cfg.KeyFile},
		Load:  f.load,
		Describe: func(c *tls.Certificate) string {
			return fmt.Sprintf("%x, which expires at %s", sha256.Sum256(c.Leaf.Raw), c.Leaf.NotAfter.Format(time.RFC3339))
		},
		Equal: func(a, b *tls.Certificate) bool {
			return slices.EqualFunc(a.Certificate, b.Certificate, slices.Equal[[]byte])
		},
	})
	if err != nil {
		return nil, err
	}
	return f, cfg.Registerer.Register(pki.ExpiryGauge("serving", func() *x509.Certificate { return f.value.Get().Leaf }))
}

func (f *Files) load() (*tls.Certificate, error) {
	found, err := tls.LoadX509KeyPair(f.cfg.CertFile, f.cfg.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("--tls-cert-file %s, --tls-private-key-file %s: %w", f.cfg.CertFile, f.cfg.KeyFile, err)
	}
	if f.value != nil { // there is one that is better, perhaps
		now := f.cfg.Clock.Now()
		if err := pki.CheckLifetime(found.Leaf, now); err != nil && f.Ready() == nil {
			return nil, fmt.Errorf("--tls-cert-file %s: %w", f.cfg.CertFile, err)
		}
	}
	return &found, nil
}

// Run follows the files until ctx ends. It returns nil.
func (f *Files) Run(ctx context.Context) error { return f.value.Run(ctx) }

// OnError makes report run when changed files cannot be used, once per reason. It must
// not block.
func (f *Files) OnError(report func(error)) { f.value.OnError(report) }

// GetCertificate is for [tls.Config].
func (f *Files) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return f.value.Get(), nil
}

// Ready returns nil while the certificate is valid.
func (f *Files) Ready() error { return pki.CheckLifetime(f.value.Get().Leaf, f.cfg.Clock.Now()) }
