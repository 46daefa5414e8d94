package servingcert

import (
	"fmt"
	"slices"
	"time"

	toolscache "k8s.io/client-go/tools/cache"

	"github.com/sakeeper/sakeeper/pkg/servingcert/pki"
)

const (
	// publishFor is how long every configuration must have had a CA before that signs anything.
	// API servers read a change of a configuration within a second; ten minutes cost nothing.
	publishFor = 10 * time.Minute
	// maxClockSkew is how far apart the clocks of replicas and API servers may be.
	maxClockSkew = pki.Backdate
	// minGain is how much longer than the old one a new serving certificate must be valid. At
	// the end of a CA's life it would not be.
	minGain = time.Hour
	// maxHosts bounds the hosts that are copied from the certificate of another replica.
	maxHosts = 100
)

// state is the input of a decision.
type state struct {
	now   time.Time
	hosts []string
	// name is the name of the Secret, for messages; found is the Secret, nil if it does not
	// exist, and contents its data.
	name     toolscache.ObjectName
	found    *Secret
	contents contents
	// configurationNames are the configurations that should exist, for messages, and
	// configurations those that do.
	configurationNames []string
	configurations     []*Configuration
	// serving is the certificate that this process serves.
	serving pki.Pair
	// published is the result of the last decision.
	published publication
	// readySince is since when this process has answered calls; zero: it does not.
	readySince time.Time
}

// action is how the Secret should change. Its values are labels of a metric.
type action string

const (
	// keep it as it is.
	keep action = "keep"
	// refuse to change it.
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

// writes returns true if a changes the Secret.
func (a action) writes() bool { return a != keep && a != refuse }

// plan is the output of a decision.
type plan struct {
	act    action
	reason string
	// hosts are those of the certificate that act may make.
	hosts []string
	// repairs are the configurations whose bundles are not bundle, or whose list of webhooks
	// is to be filled in.
	repairs []repair
	bundle  []byte
	// fillDelay is how long another list waits for this process to be ready, zero if none does,
	// and badLists says what is wrong with lists.
	fillDelay time.Duration
	badLists  []string
	// serve is the certificate that this process should serve; the zero Pair if there is none.
	serve pki.Pair
	// unready says why calls of the webhook may fail; empty: they do not.
	unready   string
	published publication
}

// rule checks one condition. The empty action: it does not apply.
type rule func(state) (action, string)

// rules are in order: the first that applies decides.
func rules() []rule {
	return []rule{
		wrongSecretType, clockBehind, secretMissing,
		caUnusable, nextPublished, servingUnusable, servingDue,
		nextUnusable, caDue, oldExpired,
	}
}

func decide(s state) plan {
	p := plan{act: keep, reason: "the certificates are right", hosts: s.hosts, published: observePublication(s)}
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
	p.serve = chooseCertificate(s, p.act)
	if p.act != refuse && p.act != begin {
		p.bundle = s.contents.bundle()
		p.repairs = repairs(s, p.serve, p.bundle)
	}
	p.fillDelay, p.badLists = fillDelayed(s), checkLists(s)
	p.unready = unready(s, p)
	return p
}

func wrongSecretType(s state) (action, string) {
	if s.found != nil && s.found.Type != SecretType {
		return refuse, fmt.Sprintf("its type is %q, not %q", s.found.Type, SecretType)
	}
	return "", ""
}

// clockBehind: by its clock, this process is before the time at which the API server wrote the
// Secret. Certificates made with that clock would be wrong.
func clockBehind(s state) (action, string) {
	if s.found != nil && s.found.WrittenAt.Sub(s.now) > maxClockSkew {
		return keep, reasonClockBehind
	}
	return "", ""
}

const reasonClockBehind = "the clock of this process is behind the API server's"

// secretMissing: the Secret comes with the manifests, and the webhook may not create it.
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
		return issue, "the serving certificate does not cover a host"
	default:
		return "", ""
	}
}

func servingDue(s state) (action, string) {
	end := s.now.Add(pki.ServingLifetime)
	if ca := s.contents.ca.Cert().NotAfter; ca.Before(end) {
		end = ca
	}
	if inLastThird(s.contents.serving, s.now) && end.Sub(s.contents.serving.Cert().NotAfter) >= minGain {
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
	if s.contents.next.Cert() == nil && inLastThird(s.contents.ca, s.now) {
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

// inLastThird returns true if a certificate is in the last third of its life.
func inLastThird(p pki.Pair, now time.Time) bool {
	c := p.Cert()
	return !now.Before(c.NotAfter.Add(-c.NotAfter.Sub(c.NotBefore) / 3))
}

// flaw says why a pair is not valid now.
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
	if len(some) > maxHosts {
		return more
	}
	all := slices.Concat(some, more)
	slices.Sort(all)
	return slices.Compact(all)
}
