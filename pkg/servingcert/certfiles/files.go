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

// Config configures [Files]. All fields are required.
type Config struct {
	// CertFile is a PEM file with the certificate and its intermediates, KeyFile one with its
	// private key.
	CertFile, KeyFile string
	// Clock says whether the certificate has expired.
	Clock clock.PassiveClock
	// Registerer gets the metric of the certificate's expiry: one Files per registerer.
	Registerer prometheus.Registerer
}

// Files serves a certificate from files. It is safe for concurrent use.
type Files struct {
	cfg   Config
	value *filewatch.Value[*tls.Certificate]
}

// New reads the files, and returns an error if they cannot be used.
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
	if f.value != nil { // the last good certificate may be better than an expired one
		now := f.cfg.Clock.Now()
		if err := pki.CheckLifetime(found.Leaf, now); err != nil && f.Ready() == nil {
			return nil, fmt.Errorf("--tls-cert-file %s: %w", f.cfg.CertFile, err)
		}
	}
	return &found, nil
}

// Run reloads the files when they change, until ctx ends, and returns nil. Call it once.
func (f *Files) Run(ctx context.Context) error { return f.value.Run(ctx) }

// OnError has report called when changed files cannot be used, once per reason. Call it before
// Run. report must not block.
func (f *Files) OnError(report func(error)) { f.value.OnError(report) }

// GetCertificate is for [tls.Config]. It never returns an error.
func (f *Files) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return f.value.Get(), nil
}

// Ready returns an error if the certificate has expired or is not valid yet.
func (f *Files) Ready() error { return pki.CheckLifetime(f.value.Get().Leaf, f.cfg.Clock.Now()) }
