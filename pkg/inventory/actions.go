package inventory

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/sakeeper/sakeeper/pkg/inventory/reach"
)

// Action is what to do about a token.
type Action struct {
	Token Token
	// Advice says what, and why.
	Advice string
	// Command is a command line for a shell.
	Command string
}

// Actions returns the n tokens to do something about first, the most dangerous first: those that are
// alive and reach further than nothing, before those that are dead and only in the way.
func Actions(tokens []Token, now time.Time, n int) []Action {
	sorted := slices.Clone(tokens)
	slices.SortStableFunc(sorted, func(a, b Token) int { return cmp.Compare(urgency(b), urgency(a)) })
	var actions []Action
	for _, t := range sorted {
		if len(actions) == n || urgency(t) == 0 {
			break
		}
		actions = append(actions, act(t, now))
	}
	return actions
}

// urgency orders tokens by reach, and within it by how easily they can be spared.
func urgency(t Token) int {
	if !t.Verdict.Alive() {
		return 1
	}
	spared := t.Verdict == Expires && t.Reach < reach.Secrets && t.Reach != reach.Unknown
	if spared || t.Reach == reach.Nothing && t.Verdict != Unused {
		return 0
	}
	ease := map[Verdict]int{Unused: 3, NeverExpires: 2, InUse: 1, Expires: 0}
	return 10*(int(t.Reach)+1) + ease[t.Verdict]
}

// act says what to do. Arguments are quoted: the names of accounts are whatever a token says.
func act(t Token, now time.Time) Action {
	secret := " -n " + quote(t.Namespace) + " " + quote(t.Secret)
	explain := "kubectl sakeeper reach " + quote(t.Account.Namespace+"/"+t.Account.Name)
	switch own := t.Kind == Legacy && t.CopyOf == ""; { // else the Secret may have more than the token
	case !t.Verdict.Alive() && own:
		return Action{t, "The API server does not accept it (" + string(t.Verdict) + "): delete it.", "kubectl delete secret" + secret}
	case !t.Verdict.Alive():
		return Action{t, "The API server does not accept it (" + string(t.Verdict) + "): remove it from the Secret, or delete the Secret if that is all it has.", "kubectl describe secret" + secret}
	case t.CopyOf != "":
		return Action{t, "It is a copy of the token in Secret " + t.CopyOf + ": give its client a token of its own that expires, with fewer rights.", explain}
	case t.Verdict == Unused && t.InvalidSince != "":
		return Action{t, "The API server refuses it since " + t.InvalidSince + ": if no client has missed it, delete it.", "kubectl delete secret" + secret}
	case t.Verdict == Unused:
		return Action{
			t, "It was not used. Have the API server refuse it, which removing the label undoes, and delete it later.",
			"kubectl label secret" + secret + " kubernetes.io/legacy-token-invalid-since=" + now.UTC().Format(time.DateOnly),
		}
	case t.Verdict == Expires:
		return Action{t, "It expires, but reaches far until then: see which bindings can go.", explain}
	case t.Reach == reach.Unknown:
		return Action{t, "Its reach is unknown: ask a user who may read roles and bindings.", explain}
	default:
		return Action{t, "It never expires: see which bindings can go, and replace it with a token that expires.", explain}
	}
}

// quote returns text as one word of a shell.
func quote(text string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '.' || r == '/' || r == '_'
	}
	for _, r := range text {
		if !plain(r) {
			return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
		}
	}
	return text
}
