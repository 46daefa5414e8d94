package rotation

import (
	"fmt"
	"slices"
	"time"

	"github.com/sakeeper/sakeeper/pkg/keys"
)

// Settings are what the waits depend on.
type Settings struct {
	// PublishFor is how long a key must have been published before it signs: the longest
	// that anybody keeps a copy of the published keys.
	PublishFor time.Duration
	// MaxExpiration is the longest lifetime of the tokens that are signed now.
	MaxExpiration time.Duration
	// RotateAfter is how long a key signs before the next one is published.
	RotateAfter time.Duration
	// Force promotes the published key whether or not it was published long enough.
	Force bool
}

// margin is added to the lifetime of tokens: verifiers allow a minute of clock skew, and
// signers need a moment to see that a key was retired.
const margin = 5 * time.Minute

// Action is what a step does.
type Action string

// The actions.
const (
	// ActionNone: all is done, or has to wait.
	ActionNone Action = "none"
	// ActionTidy removes the file of a state that its key has left.
	ActionCleanUp Action = "tidy"
	// ActionFirst makes a key that signs, where there is none at all.
	ActionFirst Action = "first"
	// ActionPublish makes the next key.
	ActionPublish Action = "publish"
	// ActionPromote lets the published key sign.
	ActionPromote Action = "promote"
	// ActionRetire destroys the private half of a key that signs no more.
	ActionRetire Action = "retire"
	// ActionHide takes a key out of discovery that verifies nothing but legacy tokens.
	ActionHide Action = "hide"
	// ActionRemove removes a key.
	ActionRemove Action = "remove"
)

// Step is the next thing to do.
type Step struct {
	Action Action
	// Key is whose state changes; zero for a key that is to be made.
	Key keys.Entry
	// File is what [ActionTidy] removes.
	File string
	// Since is when the key comes into its new state.
	Since time.Time
	// NotBefore is when the step that has to wait can be done: with [ActionNone]. Zero
	// where time alone does not help.
	NotBefore time.Time
	// Reason is for people.
	Reason string
}

// Rotate is the next step of a rotation: tidy up after the last, publish the next key,
// promote it when that is safe.
func PlanRotation(ring *keys.Keyring, now time.Time, s Settings) Step {
	if step, ok := planUnfinished(ring, now); ok {
		return step
	}
	signing, signs := ring.Signing()
	published := ring.InState(keys.StatePublished)
	switch {
	case len(published) > 0:
		next := published[len(published)-1] // the one that has waited longest
		if !next.Private.CanSign() {
			return Step{Action: ActionNone, Key: next, Reason: fmt.Sprintf("key %s cannot sign: only its public half is here. Bring its private half, or remove it with 'sakeeper keys prune --force'", next.ID())}
		}
		due := next.Since.Add(s.PublishFor)
		if now.Before(due) && !s.Force {
			return Step{Action: ActionNone, Key: next, NotBefore: due, Reason: fmt.Sprintf("the next key must be published for %v before it signs, because copies of the published keys are kept that long", s.PublishFor)}
		}
		reason := "it was published long enough"
		if now.Before(due) {
			reason = "forced, before everybody could have fetched it"
		}
		return Step{Action: ActionPromote, Key: next, Since: after(now, signing.Since), Reason: reason}
	case !signs && (len(ring.Entries()) == 0 || s.Force):
		return Step{Action: ActionFirst, Since: now, Reason: "there is no key that signs"}
	case !signs: // but some that verify: somebody has copies of them
		return Step{Action: ActionPublish, Since: now, Reason: "there is no key that signs, and a new one must be published first"}
	case now.Before(signing.Since.Add(s.RotateAfter)):
		return Step{Action: ActionNone, Key: signing, NotBefore: signing.Since.Add(s.RotateAfter), Reason: fmt.Sprintf("the key that signs is to sign for %v", s.RotateAfter)}
	default:
		return Step{Action: ActionPublish, Since: now, Reason: "no key is published as the next one"}
	}
}

// finish is what an earlier step has left to do.
func planUnfinished(ring *keys.Keyring, now time.Time) (Step, bool) {
	if step, ok := PlanCleanUp(ring); ok {
		return step, true
	}
	if signing := ring.InState(keys.StateSigning); len(signing) > 1 && signing[0].Private.CanSign() {
		overtaken := signing[len(signing)-1]
		return Step{Action: ActionRetire, Key: overtaken, Since: after(now, overtaken.Since), Reason: "a newer key signs"}, true
	}
	return Step{}, false
}

// Tidy removes a file of a state that its key has left, if there is one. It comes before
// everything else.
func PlanCleanUp(ring *keys.Keyring) (Step, bool) {
	leftover := ring.SupersededFiles()
	if len(leftover) == 0 {
		return Step{}, false
	}
	return Step{Action: ActionCleanUp, File: leftover[0], Reason: "its key has another state since"}, true
}

// after is now, or the second after another time where a clock says that is later: the
// order of states must not depend on clocks.
func after(now, other time.Time) time.Time {
	if first := other.Add(time.Second); now.Before(first) {
		return first
	}
	return now
}

// Carriers are how many token Secrets hold a token that a key verifies, by key id; nil
// where nobody was asked.
type TokenSecretCounts map[string]int

// Prune judges one key: whether it can go, or when.
func PlanRemoval(ring *keys.Keyring, m keys.Entry, now time.Time, carriers TokenSecretCounts, s Settings) Step {
	switch retired := ring.RetiredAt(m); {
	case retired.IsZero():
		return Step{Action: ActionNone, Key: m, Reason: "it signs, or is the next to sign"}
	case m.State == keys.StateSigning:
		return Step{Action: ActionNone, Key: m, Reason: "it is to be retired: run 'sakeeper keys rotate'"}
	case now.Before(lastTokenExpiry(ring, m, s)):
		return Step{Action: ActionNone, Key: m, NotBefore: lastTokenExpiry(ring, m, s), Reason: fmt.Sprintf("bound tokens that it signed live up to %v", lifetime(m, s))}
	case carriers == nil:
		return Step{Action: ActionNone, Key: m, Reason: "token Secrets may carry tokens of it; ask the API server with --kubeconfig"}
	case carriers[m.ID()] > 0 && m.State == keys.StateRetired:
		return Step{Action: ActionHide, Key: m, Since: after(now, m.Since), Reason: fmt.Sprintf("no bound token of it is alive, and %d token Secrets carry one", carriers[m.ID()])}
	case carriers[m.ID()] > 0:
		return Step{Action: ActionNone, Key: m, Reason: fmt.Sprintf("%d token Secrets carry a token of it; 'sakeeper controllers --resign-tokens=all' gives them new ones", carriers[m.ID()])}
	default:
		return Step{Action: ActionRemove, Key: m, Reason: "no token of it is alive"}
	}
}

// deadAt is when the last bound token of a key that signs no more has expired.
func lastTokenExpiry(ring *keys.Keyring, m keys.Entry, s Settings) time.Time {
	return ring.RetiredAt(m).Add(lifetime(m, s) + margin)
}

func lifetime(m keys.Entry, s Settings) time.Duration {
	return max(m.Metadata.MaxExpiration, s.MaxExpiration)
}

// Prunable are the steps for all keys that signed once. Those of [ActionNone] say what they
// wait for. While there is something to tidy up, that is the only step.
func PlanRemovals(ring *keys.Keyring, now time.Time, carriers TokenSecretCounts, s Settings) []Step {
	if step, ok := PlanCleanUp(ring); ok {
		return []Step{step}
	}
	var steps []Step
	for _, m := range slices.Backward(ring.Entries()) {
		if !ring.RetiredAt(m).IsZero() {
			steps = append(steps, PlanRemoval(ring, m, now, carriers, s))
		}
	}
	return steps
}
