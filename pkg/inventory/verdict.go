package inventory

import (
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// recently is how old a recorded use may be to show that the API server still has the key of a
// token. The record is a date, and is written once a day.
const recently = 48 * time.Hour

func (f *finder) verdict(t Token, held Held) Verdict {
	used, parsed := parseDate(t.LastUsed)
	usedLately := parsed && f.Now.Sub(used) < recently
	switch {
	case !f.Unread.Accounts && f.accountIsGone(held):
		return AccountGone
	case f.objectIsGone(held):
		return ObjectGone
	case t.Expires != nil && t.Expires.Before(f.Now):
		return Expired
	case t.KeyPublished == No && !usedLately:
		return DeadNoKey
	case t.Expires != nil:
		return Expires
	case t.InvalidSince != "":
		return Unused // the cleaner says so, and the API server refuses it
	default:
		return f.use(t, used)
	}
}

// use is the verdict about the use of a legacy token. used is when the API server recorded the last
// one; zero if it did not.
func (f *finder) use(t Token, used time.Time) Verdict {
	tracked := t.LastUsed == Never && f.Now.Sub(t.Created) >= f.UnusedAfter && f.Now.Sub(f.TrackedSince) >= f.UnusedAfter
	switch {
	case f.usedByPods(t), !used.IsZero() && f.Now.Sub(used) < f.UnusedAfter:
		return InUse
	case t.UsedByUnknown:
		return NeverExpires
	case !used.IsZero(), tracked:
		return Unused
	default:
		return NeverExpires
	}
}

func parseDate(text string) (time.Time, bool) {
	date, err := time.Parse(time.DateOnly, text)
	return date, err == nil
}

// accountIsGone returns true if the account does not exist or has another UID.
func (f *finder) accountIsGone(held Held) bool {
	uid, exists := f.accounts[held.Account]
	return !exists && f.covers(held.Account.Namespace) || exists && held.UID != "" && uid != held.UID
}

// objectIsGone returns true if the API server refuses the token because the Secret or the pod that
// it is bound to is gone or another one.
func (f *finder) objectIsGone(held Held) bool {
	namespace := held.Account.Namespace
	if !f.covers(namespace) {
		return false
	}
	if held.Pod.Name != "" && !f.Unread.Pods {
		uid, exists := f.pods[Name{namespace, held.Pod.Name}]
		return !exists || uid != types.UID(held.Pod.UID)
	}
	if held.Secret.Name == "" {
		return false
	}
	secret := f.secrets[Name{namespace, held.Secret.Name}]
	if secret == nil {
		return !f.Unread.Secrets
	}
	if held.Kind == Legacy { // the API server compares it with the one in its Secret
		return !slices.ContainsFunc(secret.Tokens, func(h Held) bool { return h.sum == held.sum })
	}
	return held.Secret.UID != "" && secret.UID != types.UID(held.Secret.UID)
}

// covers returns true if the objects of a namespace were read.
func (f *finder) covers(namespace string) bool { return f.Namespace == "" || f.Namespace == namespace }

func (f *finder) usedByPods(t Token) bool {
	for _, user := range t.UsedBy {
		if user.Pods > 0 {
			return true
		}
	}
	return false
}
