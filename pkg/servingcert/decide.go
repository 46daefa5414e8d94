package servingcert

import (
	"fmt"
	"slices"
	"time"

	toolscache "k8s.io/client-go/tools/cache"

	"github.com/sakeeper/sakeeper/pkg/servingcert/pki"
)

const (
	// publishFor is how long every configuration must have had a CA before something is
	// signed with it. API servers see a configuration within a second; there is no hurry.
	publishFor = 10 * time.Minute
	// tolerance is how far apart clocks may be.
	tolerance = pki.Backdate
	// worthwhile is what a new certificate must last longer than the old one. At the end
	// of a CA's life a new one gains nothing.
	worthwhile = time.Hour
	// manyHosts bounds what is taken over from other replicas' certificates.
	manyHosts = 100
)

// state is all that a decision looks at.
type state struct {
	now   time.Time
	hosts []string
	// name is that of the Secret, for people; found is the Secret, nil when there is none,
	// and contents what it holds.
	name     toolscache.ObjectName
	found    *Secret
	contents contents
	// named are the configurations that should exist, for people, and configurations
	// those that do.
	named          []string
	configurations []*Configuration
	// serving is what this process serves.
	serving pki.Pair
	// published is what came of the last decision.
	published publication
}

// action is what should be done to the Secret.
type action string

const (
	// keep it as it is.
	keep action = "keep"
	// refuse to touch it.
	refuse action = "refuse"
	// begin with a new CA and a certificate signed by it.
	begin action = "begin"
	// issue a new certificate.
	issue action = "issue"
	// stage the next CA: publish it.
	stage action = "stage"
	// promote the next CA: sign with it.
	promote action = "promote"
	// prune old CAs that have expired.
	prune action = "prune"
)

// writes tells whether a calls for a change of the Secret.
func (a action) writes() bool { return a != keep && a != refuse }

// plan is what should be done now.
type plan struct {
	act    action
	reason string
	// hosts are those of the certificate that act may make.
	hosts []string
	// repairs are the configurations whose bundles are not bundle.
	repairs []repair
	bundle  []byte
	// serve is what this process should serve; the zero Pair: there is nothing.
	serve pki.Pair
	// unready says why calls may fail; empty: they do not.
	unready   string
	published publication
}

// rule looks at one thing. The empty action: there is nothing to do about it.
type rule func(state) (action, string)

// rules are asked in this order, and the first that has an answer decides.
func rules() []rule {
	return []rule{
		secretOfOthers, clockBehind, secretMissing,
		caUnusable, nextPublished, servingUnusable, servingDue,
		nextUnusable, caDue, oldExpired,
	}
}

func decide(s state) plan {
	p := plan{act: keep, reason: "the certificates are right", hosts: s.hosts, published: observe(s)}
	s.published = p.published
	for _, rule := range rules() {
		if act, reason := rule(s); act != "" {
			p.act, p.reason = act, reason
			break
		}
	}
	if p.act == issue && s.contents.serving.Cert() != nil && !s.contents.serving.Covers(s.hosts) {
		p.hosts = union(s.contents.serving.Hosts(), s.hosts)
	}
	if p.act != refuse && p.act != begin {
		p.bundle = s.contents.bundle()
		p.repairs = repairs(s, p.bundle)
	}
	p.serve = choose(s, p.act)
	p.unready = unready(s, p)
	return p
}

func secretOfOthers(s state) (action, string) {
	if s.found != nil && s.found.Type != SecretType {
		return refuse, fmt.Sprintf("its type is %q, not %q: it is somebody else's", s.found.Type, SecretType)
	}
	return "", ""
}

// clockBehind: the API server wrote the Secret in what is our future. Nothing made
// with this clock would be any good.
func clockBehind(s state) (action, string) {
	if s.found != nil && s.found.WrittenAt.Sub(s.now) > tolerance {
		return keep, reasonClockBehind
	}
	return "", ""
}

const reasonClockBehind = "the clock of this process is behind the API server's"

// secretMissing: it comes with the manifests, and the webhook has no right to create it.
func secretMissing(s state) (action, string) {
	if s.found == nil {
		return keep, reasonMissing
	}
	return "", ""
}

const reasonMissing = "there is no secret"

func caUnusable(s state) (action, string) {
	if s.contents.ca.ValidAt(s.now) {
		return "", ""
	}
	act := begin
	if s.contents.next.ValidAt(s.now) {
		act = promote
	}
	return act, "the CA is " + flaw(s.contents, s.contents.ca, keyCA, s.now)
}

func nextPublished(s state) (action, string) {
	if s.contents.next.ValidAt(s.now) && !s.published.since.IsZero() && s.now.Sub(s.published.since) >= publishFor {
		return promote, "the next CA has been published"
	}
	return "", ""
}

func servingUnusable(s state) (action, string) {
	serving := s.contents.serving
	switch {
	case !serving.ValidAt(s.now):
		return issue, "the serving certificate is " + flaw(s.contents, serving, keyServing, s.now)
	case serving.Cert().CheckSignatureFrom(s.contents.ca.Cert()) != nil:
		return issue, "the serving certificate is of another CA"
	case !serving.Covers(s.hosts):
		return issue, "the serving certificate lacks a host"
	default:
		return "", ""
	}
}

func servingDue(s state) (action, string) {
	end := s.now.Add(pki.ServingLifetime)
	if ca := s.contents.ca.Cert().NotAfter; ca.Before(end) {
		end = ca
	}
	if due(s.contents.serving, s.now) && end.Sub(s.contents.serving.Cert().NotAfter) >= worthwhile {
		return issue, "the serving certificate is in the last third of its life"
	}
	return "", ""
}

func nextUnusable(s state) (action, string) {
	if slices.Contains(s.contents.damaged, keyNextCA) || s.contents.next.Cert() != nil && !s.contents.next.ValidAt(s.now) {
		return stage, "the next CA is " + flaw(s.contents, s.contents.next, keyNextCA, s.now)
	}
	return "", ""
}

func caDue(s state) (action, string) {
	if s.contents.next.Cert() == nil && due(s.contents.ca, s.now) {
		return stage, "the CA is in the last third of its life"
	}
	return "", ""
}

func oldExpired(s state) (action, string) {
	if s.contents.expired(s.now) || slices.Contains(s.contents.damaged, keyOldCAs) {
		return prune, "an old CA has expired or is damaged"
	}
	return "", ""
}

// due tells whether a pair is in the last third of its life.
func due(p pki.Pair, now time.Time) bool {
	c := p.Cert()
	return !now.Before(c.NotAfter.Add(-c.NotAfter.Sub(c.NotBefore) / 3))
}

// flaw says in a word why a pair is not valid now.
func flaw(c contents, p pki.Pair, key string, now time.Time) string {
	switch {
	case slices.Contains(c.damaged, key):
		return "damaged"
	case p.Cert() == nil:
		return "missing"
	case now.Before(p.Cert().NotBefore):
		return "not valid yet"
	default:
		return "expired"
	}
}

func union(some, more []string) []string {
	if len(some) > manyHosts {
		return more
	}
	all := slices.Concat(some, more)
	slices.Sort(all)
	return slices.Compact(all)
}
