package webhook

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"slices"
	"time"
)

// The values of the label reason of refused clients.
const (
	noCertificate        = "no-certificate"
	untrustedCertificate = "untrusted-certificate"
	otherName            = "other-name"
)

// clientError is why a client is refused. Its text is sent to the client, and names no CA.
type clientError struct{ reason, text string }

func (e clientError) Error() string { return e.text }

// checkClient returns nil if the client of r may call, else an [clientError]. The certificate is
// verified for each request, so that a new CA and the end of a certificate also hold on
// connections that exist already.
func (s *Server) checkClient(r *http.Request) error {
	if s.cfg.ClientCAs == nil {
		return nil
	}
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return clientError{noCertificate, "a client certificate is required: name one for this webhook in the kubeConfigFile of the API server's WebhookAdmissionConfiguration"}
	}
	certificate := r.TLS.PeerCertificates[0]
	intermediates := x509.NewCertPool()
	for _, c := range r.TLS.PeerCertificates[1:] {
		intermediates.AddCert(c)
	}
	roots := s.cfg.ClientCAs()
	if roots == nil {
		roots = x509.NewCertPool() // Verify takes nil for the CAs of the system
	}
	if _, err := certificate.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates, CurrentTime: time.Now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}); err != nil {
		return clientError{untrustedCertificate, "the client certificate is refused: " + err.Error()}
	}
	if len(s.cfg.ClientNames) > 0 && !slices.ContainsFunc(s.cfg.ClientNames, func(name string) bool { return hasName(certificate, name) }) {
		return clientError{otherName, "the client certificate is valid, but none of its names may call this webhook"}
	}
	return nil
}

// hasName returns true if the common name, a DNS name or a URI of the certificate is name.
func hasName(certificate *x509.Certificate, name string) bool {
	if certificate.Subject.CommonName == name || slices.Contains(certificate.DNSNames, name) {
		return true
	}
	for _, uri := range certificate.URIs {
		if uri.String() == name {
			return true
		}
	}
	return false
}

// tlsConfig requests a client certificate where clients are checked. The handshake verifies
// only that the client has its key, so that checkClient can tell the client what is wrong.
func (s *Server) tlsConfig() *tls.Config {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: s.cfg.GetCertificate}
	if s.cfg.ClientCAs != nil {
		cfg.ClientAuth = tls.RequestClientCert
	}
	return cfg
}

// refusedBecause returns the reason in err, for the metric.
func refusedBecause(err error) string {
	if client, ok := errors.AsType[clientError](err); ok {
		return client.reason
	}
	return untrustedCertificate
}
