package pki

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"

	"k8s.io/client-go/util/cert"
)

// Bundle returns the certificates in PEM, in this order, each once.
func Bundle(certs ...*x509.Certificate) []byte {
	var bundle []byte
	for i, c := range certs {
		if !slices.ContainsFunc(certs[:i], c.Equal) {
			bundle = append(bundle, pem.EncodeToMemory(&pem.Block{Type: cert.CertificateBlockType, Bytes: c.Raw})...)
		}
	}
	return bundle
}

// ParseCAs parses self-signed CAs in PEM. It returns those that it finds, and an error if there
// are none, or if the bundle contains anything else.
func ParseCAs(bundle []byte) ([]*x509.Certificate, error) {
	found, err := cert.ParseCertsPEM(bundle)
	if err != nil {
		return nil, err
	}
	var cas []*x509.Certificate
	for _, c := range found {
		if isCA(c) {
			cas = append(cas, c)
		}
	}
	if blocks := bytes.Count(bundle, []byte("-----BEGIN ")); blocks != len(cas) {
		return cas, fmt.Errorf("of %d PEM blocks, %d are self-signed CAs", blocks, len(cas))
	}
	return cas, nil
}

// isCA returns true if c is a self-signed CA.
func isCA(c *x509.Certificate) bool {
	return c.IsCA && c.BasicConstraintsValid && c.CheckSignatureFrom(c) == nil
}
