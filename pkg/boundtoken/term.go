package boundtoken

import (
	"hash/fnv"
	"math"
	"time"
)

const (
	// renewAt is the part of a lifetime after which a token is renewed at the latest.
	// Jitter only makes it earlier: with an hour to live, 12 minutes are left for an
	// outage of 6 and clocks that differ by 5.
	renewAt = 0.8
	// jitter is the part of a lifetime over which renewals that began in one moment are
	// spread.
	jitter = 0.1
	// spare is the time before expiry at which a token is renewed, however short it lives.
	spare = time.Minute
	// soonest is the part of a lifetime before which no token is renewed for its age, not
	// even for spare.
	soonest = 0.5
)

// Term is the time for which a token is good, by the clock of the API server.
type Term struct{ Issued, Expires time.Time }

// Lifetime is how long the token is good for in all.
func (t Term) Lifetime() time.Duration { return t.Expires.Sub(t.Issued) }

// Due is when to renew the token: after 70 to 80 % of its lifetime, always the same
// for one seed, such as a UID, and at least a minute before it expires.
func (t Term) Due(seed string) time.Time {
	lifetime := t.Lifetime()
	after := part(lifetime, renewAt-jitter*share(seed))
	after = min(after, lifetime-spare)
	return t.Issued.Add(max(after, part(lifetime, soonest)))
}

// DueSince is Due of a token that this process has asked for at asked, by its own
// clock. Either clock can make it earlier; but however far they are apart, a token is
// not renewed again and again.
func (t Term) DueSince(asked time.Time, seed string) time.Time {
	due, own := t.Due(seed), Term{asked, asked.Add(t.Lifetime())}.Due(seed)
	if own.Before(due) {
		due = own
	}
	if first := asked.Add(part(t.Lifetime(), soonest)); due.Before(first) {
		return first
	}
	return due
}

// Look is how long to wait before looking again at a token that is due at due: until
// then, but in steps, so that a clock that is set, or a machine that sleeps, cannot
// make us miss it.
func (t Term) Look(now, due time.Time) time.Duration {
	return min(due.Sub(now), part(t.Lifetime(), (1-renewAt)/2))
}

// share is a number from 0 to less than 1, always the same for one seed.
func share(seed string) float64 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(seed))
	return float64(h.Sum32()) / (math.MaxUint32 + 1)
}

func part(d time.Duration, share float64) time.Duration {
	return time.Duration(float64(d) * share)
}
