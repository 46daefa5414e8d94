package servingcert

import (
	"bytes"
	"crypto/x509"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sakeeper/sakeeper/pkg/servingcert/pki"
)

// SecretType is the type of a Secret that belongs to the webhook.
const SecretType corev1.SecretType = "sakeeper.io/webhook-certificates" //nolint:gosec // a name

// The keys of the Secret.
const (
	keyCA, keyCAKey         = "ca.crt", "ca.key"
	keyNextCA, keyNextCAKey = "next-ca.crt", "next-ca.key"
	keyOldCAs               = "old-ca.crt"
	keyServing              = corev1.TLSCertKey
	keyServingKey           = corev1.TLSPrivateKeyKey
)

// contents is the data of the Secret, as far as it can be parsed.
type contents struct {
	// ca signs; next is published, but does not sign yet.
	ca, next pki.Pair
	// old do not sign any more. Their private keys are deleted.
	old     []*x509.Certificate
	serving pki.Pair
	// damaged are the data keys whose values cannot be parsed.
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

// data is the inverse of parse. A data key without a value is to be deleted.
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

// bundle is the bundle that clients should trust; nil if there is no CA. It does not depend on the
// clock, so that replicas agree on it, and not on which of the CAs signs, so that nothing is
// written when the next one takes over.
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

// expired returns true if an old CA can be dropped.
func (c contents) expired(now time.Time) bool {
	return slices.ContainsFunc(c.old, func(ca *x509.Certificate) bool { return hasExpired(ca, now) })
}

// hasExpired returns true if c has expired, also for clients whose clocks are behind.
func hasExpired(c *x509.Certificate, now time.Time) bool {
	return !now.Before(c.NotAfter.Add(pki.Backdate))
}

// change returns c after act. hosts are those of a new serving certificate.
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
	c.old = slices.DeleteFunc(slices.Clone(c.old), func(ca *x509.Certificate) bool { return hasExpired(ca, now) })
	return c, err
}
