package token

import (
	"hash/fnv"
	"math"
	"time"
)

const (
	// renewAt is the part of a lifetime after which a token is renewed at the latest.
	// Jitter only makes it earlier: with an hour to live, 12 minutes are left for an
	// outage of 6 and clocks that differ by 5.
	latestRenewalShare = 0.8
	// jitter is the part of a lifetime over which renewals that began in one moment are
	// spread.
	jitterShare = 0.1
	// spare is the time before expiry at which a token is renewed, however short it lives.
	minRemaining = time.Minute
	// soonest is the part of a lifetime before which no token is renewed for its age, not
	// even for spare.
	earliestRenewalShare = 0.5
)

// Term is the time for which a token is good, by the clock of the API server.
type Validity struct{ Issued, Expires time.Time }

// Lifetime is how long the token is good for in all.
func (t Validity) Lifetime() time.Duration { return t.Expires.Sub(t.Issued) }

// Due is when to renew the token, by the clock of the API server: after 70 to 80 % of its
// lifetime, always the same for one seed, such as a UID, and at least a minute before it
// expires.
func (t Validity) RenewAt(seed string) time.Time { return t.Issued.Add(t.renewAfter(seed)) }

func (t Validity) renewAfter(seed string) time.Duration {
	lifetime := t.Lifetime()
	after := portion(lifetime, latestRenewalShare-jitterShare*seedShare(seed))
	after = min(after, lifetime-minRemaining)
	return max(after, t.earliestRenewal())
}

func (t Validity) earliestRenewal() time.Duration { return portion(t.Lifetime(), earliestRenewalShare) }

// DueIn is how long it is until the token is to be renewed at now, by the clock of the
// API server as far as it is known here; zero or less: it is due.
func (t Validity) RenewIn(now time.Time, seed string) time.Duration {
	return t.RenewAt(seed).Sub(now.Round(0))
}

// DueInSince is DueIn of a token that was asked for here, age ago. The claims and the
// age can both make it due; but however far the clocks are apart, a token is not
// renewed again and again.
func (t Validity) RenewInWithAge(age time.Duration, now time.Time, seed string) time.Duration {
	return max(min(t.RenewIn(now, seed), t.renewAfter(seed)-age), t.earliestRenewal()-age)
}

// Look is how long to wait before looking again at a token that is due in that time:
// until then, but in steps. A clock that jumps is noticed sooner by pkg/stopwatch.
func (t Validity) RequeueAfter(dueIn time.Duration) time.Duration {
	return min(dueIn, portion(t.Lifetime(), (1-latestRenewalShare)/2))
}

// share is a number from 0 to less than 1, always the same for one seed.
func seedShare(seed string) float64 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(seed))
	return float64(h.Sum32()) / (math.MaxUint32 + 1)
}

func portion(d time.Duration, share float64) time.Duration {
	return time.Duration(float64(d) * share)
}
