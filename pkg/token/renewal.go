package token

import (
	"hash/fnv"
	"math"
	"time"
)

const (
	// latestRenewalShare is the share of the lifetime after which a token is renewed at the
	// latest; jitter only makes it earlier. Of an hour, 12 minutes are left, enough for an
	// outage of 6 minutes and clocks that differ by 5.
	latestRenewalShare = 0.8
	// jitterShare is the share of the lifetime over which the renewals of tokens that were
	// issued at the same time are spread.
	jitterShare = 0.1
	// minRemaining is the time before expiry at which a token is renewed at the latest.
	minRemaining = time.Minute
	// earliestRenewalShare is the share of the lifetime before which no token is renewed, not
	// even for minRemaining.
	earliestRenewalShare = 0.5
	// notYetValidInterval is the least time between two renewals of tokens that are not valid
	// yet: the clock of the control plane may be wrong for long.
	notYetValidInterval = time.Minute
)

// Validity is the validity period of a token, by the clock of the API server. Issued is the later
// of the claims iat and nbf, and Expires must be after Issued.
type Validity struct{ Issued, Expires time.Time }

// Lifetime returns the time from Issued to Expires.
func (t Validity) Lifetime() time.Duration { return t.Expires.Sub(t.Issued) }

// NotYetValid returns true if Issued is more than a minute ahead: API servers refuse the token.
// That is so after the clock of the control plane was set back. Now is by that clock.
func (t Validity) NotYetValid(now time.Time) bool { return t.Issued.Sub(now.Round(0)) > leeway }

// RenewAt returns when to renew the token, by the clock of the API server: after 70 to 80 % of
// its lifetime and at least a minute before it expires, but not before half of its lifetime.
// The result depends only on the validity and on seed, for example a UID.
func (t Validity) RenewAt(seed string) time.Time { return t.Issued.Add(t.renewAfter(seed)) }

func (t Validity) renewAfter(seed string) time.Duration {
	lifetime := t.Lifetime()
	after := portion(lifetime, latestRenewalShare-jitterShare*seedShare(seed))
	after = min(after, lifetime-minRemaining)
	return max(after, t.earliestRenewal())
}

func (t Validity) earliestRenewal() time.Duration { return portion(t.Lifetime(), earliestRenewalShare) }

// RenewIn returns the time from now until [Validity.RenewAt], or zero for a token that is
// [Validity.NotYetValid]. If it is zero or less, the token must be renewed. Now is by the clock of
// the API server.
func (t Validity) RenewIn(now time.Time, seed string) time.Duration {
	if t.NotYetValid(now) {
		return 0
	}
	return t.RenewAt(seed).Sub(now.Round(0))
}

// RenewInWithAge is RenewIn of a token that this process requested age ago, by a clock that
// cannot be set. The token is renewed by the earlier of the two clocks, but never before half
// of its lifetime by age: if the clocks differ, it is not renewed again and again. A token that is
// [Validity.NotYetValid] is renewed a minute after it was requested.
func (t Validity) RenewInWithAge(age time.Duration, now time.Time, seed string) time.Duration {
	if t.NotYetValid(now) {
		return min(notYetValidInterval, t.renewAfter(seed)) - age
	}
	return max(min(t.RenewIn(now, seed), t.renewAfter(seed)-age), t.earliestRenewal()-age)
}

// RequeueAfter returns when to check a token again that must be renewed in renewIn: then, but
// at the latest after 10 % of its lifetime, in case a clock has changed.
func (t Validity) RequeueAfter(renewIn time.Duration) time.Duration {
	return min(renewIn, portion(t.Lifetime(), (1-latestRenewalShare)/2))
}

// seedShare returns a number from 0 to less than 1 that depends only on seed.
func seedShare(seed string) float64 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(seed))
	return float64(h.Sum32()) / (math.MaxUint32 + 1)
}

func portion(d time.Duration, share float64) time.Duration {
	return time.Duration(float64(d) * share)
}
