package rotation

import (
	"fmt"
	"slices"
	"time"

	"github.com/sakeeper/sakeeper/pkg/keys"
)

// Settings are the durations that a rotation depends on. Zero means no wait.
type Settings struct {
	// PublishFor is how long a key is published before it signs: as long as verifiers cache
	// the published keys.
	PublishFor time.Duration
	// MaxExpiration is the longest lifetime of the tokens that are signed now. Kube-apiserver
	// extends those of pods to 8760h, unless --service-account-extend-token-expiration is false.
	MaxExpiration time.Duration
	// RotateAfter is how long a key signs before the next one is published.
	RotateAfter time.Duration
	// Force skips the wait of PublishFor.
	Force bool
}

// margin is added to the lifetime of tokens: verifiers allow a minute of clock skew, and
// signers need time to see that a key was retired.
const margin = 5 * time.Minute

// Action is what a step does.
type Action string

// The actions.
const (
	// ActionNone means that there is nothing to do, or not yet.
	ActionNone Action = "none"
	// ActionCleanUp removes a file that a newer file of the same key supersedes.
	ActionCleanUp Action = "tidy"
	// ActionFirst makes a key that signs at once, because there is none.
	ActionFirst Action = "first"
	// ActionPublish makes the next key.
	ActionPublish Action = "publish"
	// ActionPromote makes the published key sign.
	ActionPromote Action = "promote"
	// ActionRetire destroys the private half of a key that no longer signs.
	ActionRetire Action = "retire"
	// ActionHide removes a key from the JWKS that verifies only legacy tokens.
	ActionHide Action = "hide"
	// ActionRemove removes a key.
	ActionRemove Action = "remove"
)

// Step is the next action on a keyring.
type Step struct {
	// Action is what to do.
	Action Action
	// Key is the key whose state changes; zero if a key is to be made.
	Key keys.Entry
	// File is the name of the file that [ActionCleanUp] removes.
	File string
	// Since is when the key enters its new state.
	Since time.Time
	// NotBefore, with [ActionNone], is when another step is possible; zero if that does not
	// depend on the time.
	NotBefore time.Time
	// Reason says in words for the user why this is the step.
	Reason string
}

// PlanRotation returns the next step of a rotation: complete the last one, publish the next
// key, or promote it after the wait.
func PlanRotation(ring *keys.Keyring, now time.Time, s Settings) Step {
	if step, ok := planUnfinished(ring, now); ok {
		return step
	}
	signing, signs := ring.Signing()
	published := ring.InState(keys.StatePublished)
	switch {
	case len(published) > 0:
		next := published[len(published)-1] // the oldest
		if !next.Private.CanSign() {
			return Step{Action: ActionNone, Key: next, Reason: fmt.Sprintf("key %s cannot sign: only its public half is here. Add its private half, or remove it with 'sakeeper keys prune --force'", next.ID())}
		}
		due := next.Since.Add(s.PublishFor)
		if now.Before(due) && !s.Force {
			return Step{Action: ActionNone, Key: next, NotBefore: due, Reason: fmt.Sprintf("the next key must be published for %v before it signs, because copies of the published keys are kept that long", s.PublishFor)}
		}
		reason := "it was published long enough"
		if now.Before(due) {
			reason = "forced, before all verifiers could fetch it"
		}
		return Step{Action: ActionPromote, Key: next, Since: after(now, signing.Since), Reason: reason}
	case !signs && (len(ring.Entries()) == 0 || s.Force):
		return Step{Action: ActionFirst, Since: now, Reason: "there is no key that signs"}
	case !signs: // some keys verify, and verifiers cache them
		return Step{Action: ActionPublish, Since: now, Reason: "there is no key that signs, and a new one must be published first"}
	case now.Before(signing.Since.Add(s.RotateAfter)):
		return Step{Action: ActionNone, Key: signing, NotBefore: signing.Since.Add(s.RotateAfter), Reason: fmt.Sprintf("the key that signs is to sign for %v", s.RotateAfter)}
	default:
		return Step{Action: ActionPublish, Since: now, Reason: "no key is published as the next one"}
	}
}

// planUnfinished returns the step that completes an earlier one.
func planUnfinished(ring *keys.Keyring, now time.Time) (Step, bool) {
	if step, ok := PlanCleanUp(ring); ok {
		return step, true
	}
	if signing := ring.InState(keys.StateSigning); len(signing) > 1 && signing[0].Private.CanSign() {
		oldest := signing[len(signing)-1]
		return Step{Action: ActionRetire, Key: oldest, Since: after(now, oldest.Since), Reason: "a newer key signs"}, true
	}
	return Step{}, false
}

// PlanCleanUp returns the step that removes a superseded file, or false if there is none. It
// comes before every other step.
func PlanCleanUp(ring *keys.Keyring) (Step, bool) {
	superseded := ring.SupersededFiles()
	if len(superseded) == 0 {
		return Step{}, false
	}
	return Step{Action: ActionCleanUp, File: superseded[0], Reason: "its key has another state since"}, true
}

// after returns now, or one second after other if that is later: the order of states must not
// depend on clocks.
func after(now, other time.Time) time.Time {
	if first := other.Add(time.Second); now.Before(first) {
		return first
	}
	return now
}

// PlanRemoval returns the next step towards the removal of one key of the keyring, or
// [ActionNone] with what it waits for.
func PlanRemoval(ring *keys.Keyring, m keys.Entry, now time.Time, counts TokenSecretCounts, s Settings) Step {
	switch retired := ring.RetiredAt(m); {
	case retired.IsZero():
		return Step{Action: ActionNone, Key: m, Reason: "it signs, or will sign next"}
	case m.State == keys.StateSigning:
		return Step{Action: ActionNone, Key: m, Reason: "it is to be retired: run 'sakeeper keys rotate'"}
	case now.Before(lastTokenExpiry(ring, m, s)):
		return Step{Action: ActionNone, Key: m, NotBefore: lastTokenExpiry(ring, m, s), Reason: fmt.Sprintf("bound tokens that it signed live up to %v", lifetime(m, s))}
	case counts == nil:
		return Step{Action: ActionNone, Key: m, Reason: "token Secrets may carry tokens of it; ask the API server with --kubeconfig"}
	case counts[m.ID()] > 0 && m.State == keys.StateRetired:
		return Step{Action: ActionHide, Key: m, Since: after(now, m.Since), Reason: fmt.Sprintf("no bound token of it is alive, and %d token Secrets carry one", counts[m.ID()])}
	case counts[m.ID()] > 0:
		return Step{Action: ActionNone, Key: m, Reason: fmt.Sprintf("%d token Secrets carry a token of it; 'sakeeper controllers --resign-tokens=all' gives them new ones", counts[m.ID()])}
	default:
		return Step{Action: ActionRemove, Key: m, Reason: "no token of it is alive"}
	}
}

// lastTokenExpiry returns when the last bound token of a key that no longer signs has expired.
func lastTokenExpiry(ring *keys.Keyring, m keys.Entry, s Settings) time.Time {
	return ring.RetiredAt(m).Add(lifetime(m, s) + margin)
}

func lifetime(m keys.Entry, s Settings) time.Duration {
	return max(m.Metadata.MaxExpiration, s.MaxExpiration)
}

// PlanRemovals returns the [PlanRemoval] of every key that no longer signs, the oldest first.
// If there is a superseded file, the only step is its clean-up.
func PlanRemovals(ring *keys.Keyring, now time.Time, counts TokenSecretCounts, s Settings) []Step {
	if step, ok := PlanCleanUp(ring); ok {
		return []Step{step}
	}
	var steps []Step
	for _, m := range slices.Backward(ring.Entries()) {
		if !ring.RetiredAt(m).IsZero() {
			steps = append(steps, PlanRemoval(ring, m, now, counts, s))
		}
	}
	return steps
}
