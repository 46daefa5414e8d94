package tokengeneration

import (
	"cmp"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// Mode says which ServiceAccounts get a token Secret.
type Mode string

// The values of --auto-generate-token-secrets.
const (
	// ModeNone is for no account; there is no controller for it.
	ModeNone Mode = "none"
	// ModeLabelled is for accounts that ask for it, or whose namespace does, with the
	// label sakeeper.io/auto-token=true.
	ModeLabelled Mode = "labelled"
	// ModeAll is for every account, but those that say false in that label and those
	// whose token was cleaned up for lack of use.
	ModeAll Mode = "all"
)

// state is what is known of one ServiceAccount.
type state struct {
	mode Mode
	now  time.Time
	// started is when this process began, and settled when nothing that a former one
	// has sent can be under way any more.
	started, settled time.Time
	// account and its namespace are nil where the cache has none.
	account   *corev1.ServiceAccount
	namespace *corev1.Namespace
	// secrets are the cached token Secrets that name the account.
	secrets []*cache.TokenSecret
	// missing are names that the account refers to and of which the cache has no token
	// Secret.
	missing []string
	// live says of the missing which are token Secrets of the account after all. Nil:
	// the API server was not asked.
	live map[string]bool
	plan plan
}

type action int

const (
	none     action = iota
	await           // for the cache to show what was written
	settle          // until nothing of a former process is under way
	look            // ask the API server about names that the cache does not have
	probe           // ask the API server whether a create was carried out
	refer           // write a reference to a Secret that exists
	generate        // make a Secret, and write a reference
	discard         // delete the Secret that was made
)

// decision is what to do, why, and to which Secret where there is one.
type decision struct {
	action action
	reason string
	secret string
	uid    types.UID
}

func decide(s state) decision {
	switch {
	case s.account == nil, s.plan.account != "" && s.plan.account != s.account.UID:
		return s.leave("service account is gone")
	case s.lags():
		return decision{action: await, reason: "cache does not show the reference yet"}
	case s.account.DeletionTimestamp != nil:
		return decision{reason: "service account is being deleted"}
	case s.namespace == nil || s.namespace.Status.Phase == corev1.NamespaceTerminating:
		return decision{reason: "namespace is gone or going"}
	case s.hasLiveReference():
		return s.leave("service account refers to a token secret")
	case !s.wanted():
		return s.leave("nobody asks for a token secret")
	case len(s.missing) > 0 && s.live == nil:
		return decision{action: look, reason: "service account refers to a secret that the cache does not have"}
	default:
		return s.provide()
	}
}

// provide is the decision for an account that should have a token Secret and has none.
// Another one is made only when there is certainly none that could be referred to.
func (s state) provide() decision {
	found := s.unreferenced()
	switch {
	case s.plan.secret != "":
		return decision{action: refer, reason: "token secret was made for it", secret: s.plan.name, uid: s.plan.secret}
	case found != nil:
		return decision{action: refer, reason: "token secret was made for it before", secret: found.Name, uid: found.UID}
	case s.plan.inDoubt():
		return decision{action: probe, reason: "the API server did not say whether it made the token secret", secret: s.plan.name}
	case !s.account.CreationTimestamp.After(s.started) && s.now.Before(s.settled):
		return decision{action: settle, reason: "a former process may still be making a token secret"}
	default:
		return decision{action: generate, reason: "service account has no token secret"}
	}
}

// leave is the decision for an account that needs no Secret from here: what was made
// for it and never referred to goes again.
func (s state) leave(reason string) decision {
	switch {
	case s.account != nil && s.account.UID == s.plan.account && s.refersTo(s.plan.name):
		return decision{reason: reason}
	case s.plan.inDoubt():
		return decision{action: probe, reason: reason, secret: s.plan.name}
	case s.plan.withdrawable():
		return decision{action: discard, reason: reason, secret: s.plan.name, uid: s.plan.secret}
	default:
		return decision{reason: reason}
	}
}

// begins tells whether d is the start of something, which can wait. What is under way
// is brought to its end.
func (s state) begins(d decision) bool {
	switch d.action {
	case generate:
		return true
	case look:
		return s.plan.secret == ""
	case refer:
		return d.secret != s.plan.name
	default:
		return false
	}
}

// lags tells whether the cached account is older than the reference that was written
// to it.
func (s state) lags() bool {
	order, err := resourceversion.CompareResourceVersion(s.account.ResourceVersion, s.plan.version)
	return err == nil && order < 0
}

// hasLiveReference tells whether the account refers to a token Secret of its own. One
// that is marked invalid exists still: what the cleaner withdrew is not replaced. One
// that is being deleted does not count, the API server refuses its token.
func (s state) hasLiveReference() bool {
	for _, ref := range s.account.Secrets {
		if s.live[ref.Name] {
			return true
		}
		for _, secret := range s.secrets {
			if secret.Name == ref.Name && secret.DeletionTimestamp == nil && belongs(secret.AccountUID, s.account.UID) {
				return true
			}
		}
	}
	return false
}

func (s state) refersTo(name string) bool {
	return slices.ContainsFunc(s.account.Secrets, func(ref corev1.ObjectReference) bool { return ref.Name == name })
}

// unreferenced is the oldest token Secret that some controller made for this very
// account and that works; nil: there is none.
func (s state) unreferenced() *cache.TokenSecret {
	var found []*cache.TokenSecret
	for _, secret := range s.secrets {
		if secret.AccountUID == s.account.UID && cache.IsGeneratedName(s.account.Name, secret.Name) &&
			secret.DeletionTimestamp == nil && secret.Labels[token.InvalidSinceLabel] == "" && !s.refersTo(secret.Name) {
			found = append(found, secret)
		}
	}
	if len(found) == 0 {
		return nil
	}
	return slices.MinFunc(found, func(a, b *cache.TokenSecret) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
}

// wanted tells whether the account should have a token Secret. What its own label
// says beats that of its namespace; a value other than true and false says nothing.
func (s state) wanted() bool {
	asked, refused := false, false
	for _, labels := range []map[string]string{s.namespace.Labels, s.account.Labels} {
		switch labels[api.AutoTokenLabel] {
		case "true":
			asked, refused = true, false
		case "false":
			asked, refused = false, true
		}
	}
	_, cleanedUp := s.account.Annotations[api.CleanedUpAnnotation]
	switch s.mode {
	case ModeAll:
		return asked || !refused && !cleanedUp
	case ModeLabelled:
		return asked
	default:
		return false
	}
}

// belongs tells whether a Secret that names an account by the UID named, which may be
// empty, means the account with that UID.
func belongs(named, account types.UID) bool { return named == "" || named == account }
