package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"time"
)

const (
	// CALifetime is how long a CA is valid.
	CALifetime = 365 * 24 * time.Hour
	// ServingLifetime is how long a serving certificate is valid. It is less than a third of
	// CALifetime, so that no certificate is cut short if the CA is replaced in its last third.
	ServingLifetime = 90 * 24 * time.Hour
	// Backdate is how long before it is made a certificate becomes valid.
	Backdate = time.Hour
)

// Pair is a certificate and its private key. It is immutable; the zero Pair has no certificate.
type Pair struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// NewCA makes a self-signed CA that is valid at now.
func NewCA(now time.Time) (Pair, error) {
	template := &x509.Certificate{
		// Each has a different name, because verifiers find issuers by name.
		Subject:               pkix.Name{CommonName: fmt.Sprintf("sakeeper-webhook-ca@%d", now.Unix())},
		NotBefore:             now.Add(-Backdate),
		NotAfter:              now.Add(CALifetime),
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	return Pair{}.sign(template)
}

// Issue makes a serving certificate for hosts, which are DNS names and IP addresses, signed by the
// CA p. It returns an error if p is not a CA.
func (p Pair) Issue(hosts []string, now time.Time) (Pair, error) {
	if !p.IsCA() {
		return Pair{}, errors.New("make certificate: there is no CA to sign it")
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "sakeeper-webhook"},
		NotBefore:             now.Add(-Backdate),
		NotAfter:              now.Add(ServingLifetime),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	if template.NotAfter.After(p.cert.NotAfter) {
		template.NotAfter = p.cert.NotAfter
	}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	return p.sign(template)
}

// sign makes a key and a certificate for it, signed by p; for the zero Pair it is self-signed.
func (p Pair) sign(template *x509.Certificate) (Pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, fmt.Errorf("make key: %w", err)
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)); err != nil {
		return Pair{}, fmt.Errorf("make serial number: %w", err)
	}
	parent, signer := p.cert, p.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return Pair{}, fmt.Errorf("make certificate: %w", err)
	}
	made, err := x509.ParseCertificate(der)
	return Pair{cert: made, key: key}, err
}

// ParsePair parses one certificate and its private key, and returns an error if they do not belong
// together.
func ParsePair(certPEM, keyPEM []byte) (Pair, error) {
	found, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return Pair{}, err
	}
	key, ok := found.PrivateKey.(crypto.Signer)
	if !ok || len(found.Certificate) != 1 {
		return Pair{}, errors.New("want one certificate and a private key that signs")
	}
	return Pair{cert: found.Leaf, key: key}, nil
}

// Cert returns the certificate, which must not be changed; nil if there is none.
func (p Pair) Cert() *x509.Certificate { return p.cert }

// IsCA returns true if p is a self-signed CA.
func (p Pair) IsCA() bool { return p.cert != nil && isCA(p.cert) }

// ValidAt returns true if there is a certificate, and it is valid at now.
func (p Pair) ValidAt(now time.Time) bool {
	return p.cert != nil && !now.Before(p.cert.NotBefore) && now.Before(p.cert.NotAfter)
}

// Covers returns true if the certificate is for every host.
func (p Pair) Covers(hosts []string) bool {
	for _, host := range hosts {
		if p.cert == nil || p.cert.VerifyHostname(host) != nil {
			return false
		}
	}
	return true
}

// Hosts returns the DNS names and IP addresses of the certificate.
func (p Pair) Hosts() []string {
	if p.cert == nil {
		return nil
	}
	hosts := append([]string(nil), p.cert.DNSNames...)
	for _, ip := range p.cert.IPAddresses {
		hosts = append(hosts, ip.String())
	}
	return hosts
}

// TrustedBy returns true if a client that calls host at now, and trusts only the CAs in bundle,
// accepts the certificate.
func (p Pair) TrustedBy(bundle []byte, host string, now time.Time) bool {
	roots := x509.NewCertPool()
	if p.cert == nil || !roots.AppendCertsFromPEM(bundle) {
		return false
	}
	_, err := p.cert.Verify(x509.VerifyOptions{Roots: roots, DNSName: host, CurrentTime: now})
	return err == nil
}

// TLS returns the pair for crypto/tls; nil if there is no certificate.
func (p Pair) TLS() *tls.Certificate {
	if p.cert == nil {
		return nil
	}
	return &tls.Certificate{Certificate: [][]byte{p.cert.Raw}, PrivateKey: p.key, Leaf: p.cert}
}

// Encode returns the pair in PEM, for [ParsePair]. The key is secret. It returns an error if there
// is no certificate.
func (p Pair) Encode() (certPEM, keyPEM []byte, err error) {
	if p.cert == nil {
		return nil, nil, errors.New("there is no certificate")
	}
	der, err := x509.MarshalPKCS8PrivateKey(p.key)
	if err != nil {
		return nil, nil, fmt.Errorf("encode private key of type %T", p.key)
	}
	return Bundle(p.cert), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// String returns the common name and the serial number.
func (p Pair) String() string {
	if p.cert == nil {
		return "none"
	}
	return fmt.Sprintf("%s %x", p.cert.Subject.CommonName, p.cert.SerialNumber)
}

// Format prints String for every verb, so that none prints the key.
func (p Pair) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, p.String()) }

// MarshalJSON encodes String, so that no structured log contains the key.
func (p Pair) MarshalJSON() ([]byte, error) { return fmt.Appendf(nil, "%q", p.String()), nil }
