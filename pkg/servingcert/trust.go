package servingcert

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sakeeper/sakeeper/pkg/servingcert/pki"
)

// publication is since when every configuration has had the same bundle. The zero publication: not
// all have it.
type publication struct {
	sum   [sha256.Size]byte
	since time.Time
}

// repair is a configuration, and what has to be written to it.
type repair struct {
	configuration *Configuration
	// webhooks are the names of those that need the bundle.
	webhooks []string
	// list is nil, or the webhooks, with the bundle, that take the place of those that are there.
	list []map[string]any
	// urgent: the configuration does not trust the certificate that is served, so that every
	// call fails.
	urgent bool
}

// observePublication checks whether every configuration has the bundle.
func observePublication(s state) publication {
	bundle := s.contents.bundle()
	if bundle == nil || len(s.configurations) == 0 {
		return publication{}
	}
	for _, c := range s.configurations {
		ours := c.ours(s.hosts)
		if len(ours) == 0 || slices.ContainsFunc(ours, func(w Webhook) bool { return !bytes.Equal(w.CABundle, bundle) }) {
			return publication{}
		}
	}
	sum := sha256.Sum256(bundle)
	if s.published.sum == sum && !s.published.since.IsZero() && !s.now.Before(s.published.since) {
		return s.published
	}
	return publication{sum: sum, since: s.now}
}

func repairs(s state, serve pki.Pair, bundle []byte) []repair {
	if bundle == nil {
		return nil
	}
	var all []repair
	for _, c := range s.configurations {
		if list := fill(s, c, serve, bundle); list != nil {
			all = append(all, repair{configuration: c, list: list})
			continue
		}
		r := repair{configuration: c, urgent: distrusted(c, s, serve) != ""}
		for _, w := range c.ours(s.hosts) {
			if !bytes.Equal(w.CABundle, bundle) {
				r.webhooks = append(r.webhooks, w.Name)
			}
		}
		if len(r.webhooks) > 0 {
			all = append(all, r)
		}
	}
	return all
}

// fill returns the list of webhooks that is to be filled in now; nil if there is none.
func fill(s state, c *Configuration, serve pki.Pair, bundle []byte) []map[string]any {
	if !c.mustFill() || fillWait(s) > 0 {
		return nil
	}
	list, err := c.parseList(s.hosts, bundle)
	if err != nil || slices.ContainsFunc(s.hosts, func(host string) bool { return !serve.TrustedBy(bundle, host, s.now) }) {
		return nil
	}
	return list
}

// chooseCertificate returns the stored certificate, unless only the one that is being served is
// trusted.
func chooseCertificate(s state, act action) pki.Pair {
	stored := s.contents.serving
	if act == refuse {
		stored = pki.Pair{}
	}
	for _, p := range []pki.Pair{stored, s.serving} {
		if p.Cert() != nil && len(s.configurations) > 0 && untrusted(s, p) == "" {
			return p
		}
	}
	if stored.Cert() != nil {
		return stored
	}
	return s.serving
}

func unready(s state, p plan) string {
	switch {
	case p.act == refuse:
		return "the secret cannot be used: " + p.reason
	case s.found == nil && p.serve.Cert() == nil:
		return missing(s)
	case p.serve.Cert() == nil:
		return "there is no certificate yet"
	case len(s.configurations) == 0:
		return "waiting for " + strings.Join(s.configurationNames, " and ")
	case s.found == nil && untrusted(s, p.serve) != "":
		return untrusted(s, p.serve) + "; " + missing(s)
	default:
		return untrusted(s, p.serve)
	}
}

// missing says what to do if there is no Secret.
func missing(s state) string {
	return fmt.Sprintf("there is no secret %s: apply the manifests of the webhook again, or create an empty secret of that name and the type %s", s.name, SecretType)
}

// untrusted says which configuration does not trust p, and is empty if all do.
func untrusted(s state, p pki.Pair) string {
	for _, c := range s.configurations {
		if reason := distrusted(c, s, p); reason != "" {
			return reason
		}
	}
	return ""
}

// distrusted says why c does not trust p, and is empty if it does.
func distrusted(c *Configuration, s state, p pki.Pair) string {
	ours := c.ours(s.hosts)
	if len(ours) == 0 && len(c.Webhooks) > 0 {
		return fmt.Sprintf("%s has no webhook that calls %s", c, strings.Join(s.hosts, ", "))
	}
	for _, w := range ours {
		if !p.TrustedBy(w.CABundle, w.Host, s.now) {
			return fmt.Sprintf("%s, webhook %s: its caBundle does not trust the certificate that is served", c, w.Name)
		}
	}
	return ""
}
