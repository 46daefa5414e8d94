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
	// CALifetime is how long a CA may be used.
	CALifetime = 365 * 24 * time.Hour
	// ServingLifetime is how long a serving certificate may be used. It is less than a
	// third of CALifetime, so that a CA which is renewed in its last third never cuts
	// one short.
	ServingLifetime = 90 * 24 * time.Hour
	// Backdate is how long before the moment of making a certificate begins.
	Backdate = time.Hour
)

// Pair is a certificate and its private key. It is immutable; the zero Pair holds
// none.
type Pair struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// NewCA makes a CA that signs itself.
func NewCA(now time.Time) (Pair, error) {
	template := &x509.Certificate{
		// Each has a name of its own, because verifiers look for issuers by name.
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

// Issue makes a serving certificate for hosts, which are DNS names and IP
// addresses, and signs it with the CA p.
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

// sign makes a key and a certificate for it; the zero Pair lets it sign itself.
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

// ParsePair reads one certificate and its private key.
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

// Cert is the certificate; nil: there is none. It must not be changed.
func (p Pair) Cert() *x509.Certificate { return p.cert }

// IsCA tells whether this is a CA that signed itself.
func (p Pair) IsCA() bool { return p.cert != nil && IsCA(p.cert) }

// ValidAt tells whether now is in the lifetime of the certificate that p has.
func (p Pair) ValidAt(now time.Time) bool {
	return p.cert != nil && !now.Before(p.cert.NotBefore) && now.Before(p.cert.NotAfter)
}

// Covers tells whether the certificate is good for every host.
func (p Pair) Covers(hosts []string) bool {
	for _, host := range hosts {
		if p.cert == nil || p.cert.VerifyHostname(host) != nil {
			return false
		}
	}
	return true
}

// Hosts are the names and addresses that the certificate is for.
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

// TrustedBy tells whether a client that calls host, and trusts the CAs in bundle and
// nothing else, accepts the certificate at now.
func (p Pair) TrustedBy(bundle []byte, host string, now time.Time) bool {
	roots := x509.NewCertPool()
	if p.cert == nil || !roots.AppendCertsFromPEM(bundle) {
		return false
	}
	_, err := p.cert.Verify(x509.VerifyOptions{Roots: roots, DNSName: host, CurrentTime: now})
	return err == nil
}

// TLS is the pair as crypto/tls serves it; nil where there is none.
func (p Pair) TLS() *tls.Certificate {
	if p.cert == nil {
		return nil
	}
	return &tls.Certificate{Certificate: [][]byte{p.cert.Raw}, PrivateKey: p.key, Leaf: p.cert}
}

// Encode returns what [ParsePair] reads. The key is secret.
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

// String names the certificate.
func (p Pair) String() string {
	if p.cert == nil {
		return "none"
	}
	return fmt.Sprintf("%s %x", p.cert.Subject.CommonName, p.cert.SerialNumber)
}

// Format is String for every verb, so that none prints the key.
func (p Pair) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, p.String()) }

// MarshalJSON is String, so that no structured log holds the key.
func (p Pair) MarshalJSON() ([]byte, error) { return fmt.Appendf(nil, "%q", p.String()), nil }
