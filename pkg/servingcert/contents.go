package servingcert

import (
	"bytes"
	"crypto/x509"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sakeeper/sakeeper/pkg/servingcert/pki"
)

// SecretType is the type of the Secret that is the webhook's own.
const SecretType corev1.SecretType = "sakeeper.io/webhook-certificates" //nolint:gosec // a name

// The keys of the Secret.
const (
	keyCA, keyCAKey         = "ca.crt", "ca.key"
	keyNextCA, keyNextCAKey = "next-ca.crt", "next-ca.key"
	keyOldCAs               = "old-ca.crt"
	keyServing              = corev1.TLSCertKey
	keyServingKey           = corev1.TLSPrivateKeyKey
)

// contents is what the Secret holds, as far as it can be read.
type contents struct {
	// ca signs; next is published and does not sign yet.
	ca, next pki.Pair
	// old do not sign any more. Nobody has their keys.
	old     []*x509.Certificate
	serving pki.Pair
	// damaged are the keys whose values cannot be read.
	damaged []string
}

func parse(data map[string][]byte) contents {
	var c contents
	pair := func(cert, key string) pki.Pair {
		if len(data[cert]) == 0 && len(data[key]) == 0 {
			return pki.Pair{}
		}
		found, err := pki.ParsePair(data[cert], data[key])
		if err != nil || found.IsCA() != (cert != keyServing) {
			c.damaged = append(c.damaged, cert)
			return pki.Pair{}
		}
		return found
	}
	c.ca = pair(keyCA, keyCAKey)
	c.next = pair(keyNextCA, keyNextCAKey)
	c.serving = pair(keyServing, keyServingKey)
	if len(data[keyOldCAs]) > 0 {
		var err error
		if c.old, err = pki.ParseCAs(data[keyOldCAs]); err != nil {
			c.damaged = append(c.damaged, keyOldCAs)
		}
	}
	return c
}

// data is the inverse of parse. A key that is to go has no value.
func (c contents) data() (map[string][]byte, error) {
	data := map[string][]byte{keyNextCA: nil, keyNextCAKey: nil, keyOldCAs: pki.Bundle(c.old...)}
	for _, p := range []struct {
		pair      pki.Pair
		cert, key string
	}{{c.ca, keyCA, keyCAKey}, {c.next, keyNextCA, keyNextCAKey}, {c.serving, keyServing, keyServingKey}} {
		if p.pair.Cert() == nil {
			continue
		}
		var err error
		if data[p.cert], data[p.key], err = p.pair.Encode(); err != nil {
			return nil, err
		}
	}
	return data, nil
}

// bundle is what clients should trust; nil where there is no CA. It does not depend on
// the clock, so that replicas agree on it, nor on which of the CAs signs, so that
// nothing is written when the next one takes over.
func (c contents) bundle() []byte {
	if c.ca.Cert() == nil {
		return nil
	}
	cas := append([]*x509.Certificate{c.ca.Cert()}, c.old...)
	if c.next.Cert() != nil {
		cas = append(cas, c.next.Cert())
	}
	slices.SortFunc(cas, func(a, b *x509.Certificate) int { return bytes.Compare(a.Raw, b.Raw) })
	return pki.Bundle(cas...)
}

// expired are the old CAs that verify nothing any more.
func (c contents) expired(now time.Time) bool {
	return slices.ContainsFunc(c.old, func(ca *x509.Certificate) bool { return over(ca, now) })
}

// over tells that c has expired, also for readers whose clocks are behind.
func over(c *x509.Certificate, now time.Time) bool {
	return !now.Before(c.NotAfter.Add(pki.Backdate))
}

// change makes what act calls for out of c. hosts are those of a new certificate.
func (c contents) change(act action, hosts []string, now time.Time) (contents, error) {
	var err error
	switch act {
	case begin:
		c = contents{}
		if c.ca, err = pki.NewCA(now); err != nil {
			return c, err
		}
	case promote:
		if c.ca.Cert() != nil {
			c.old = append(slices.Clip(c.old), c.ca.Cert())
		}
		c.ca, c.next = c.next, pki.Pair{}
	case stage:
		c.next, err = pki.NewCA(now)
	default:
	}
	if act == begin || act == promote || act == issue {
		if c.serving, err = c.ca.Issue(hosts, now); err != nil {
			return c, err
		}
	}
	c.old = slices.DeleteFunc(slices.Clone(c.old), func(ca *x509.Certificate) bool { return over(ca, now) })
	return c, err
}
