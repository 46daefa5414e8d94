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

// Mode selects the ServiceAccounts that get a token Secret. The zero value is not valid.
type Mode string

// The values of --auto-generate-token-secrets.
const (
	// ModeNone selects no account. [New] refuses it: no controller is needed.
	ModeNone Mode = "none"
	// ModeLabelled selects accounts with the label sakeeper.io/auto-token=true, on the
	// account or on its namespace. A label of the account overrides its namespace's.
	ModeLabelled Mode = "labelled"
	// ModeAll selects every account but those with the value false in that label and
	// those whose unused token was cleaned up.
	ModeAll Mode = "all"
)

// state is what is known of one ServiceAccount.
type state struct {
	mode Mode
	now  time.Time
	// started is when this process began. From previousRequestsEnd on, no request of a
	// previous process can be carried out any more.
	started, previousRequestsEnd time.Time
	// account and its namespace are nil if the cache does not have them.
	account   *corev1.ServiceAccount
	namespace *corev1.Namespace
	// secrets are the cached token Secrets that name the account.
	secrets []*cache.TokenSecret
	// missing are names that the account refers to and of which the cache has no token
	// Secret.
	missing []string
	// live has the missing names that the API server knows as Secrets, and true for token
	// Secrets of the account. Nil: the API server was not asked.
	live map[string]bool
	plan plan
}

type action int

const (
	none            action = iota
	awaitCache             // wait until the cache shows what was written
	awaitRequests          // wait until no request of a previous process can be carried out
	checkReferences        // read references that the cache does not have from the API server
	checkCreate            // ask the API server whether a create was carried out
	addReference           // write a reference to a Secret that exists
	generate               // create a Secret, and write a reference
	deleteSecret           // delete the Secret that was created
)

// decision is an action, its reason, and the Secret that it is about, if any.
type decision struct {
	action    action
	reason    string
	secret    string
	secretUID types.UID
}

func decide(s state) decision {
	switch {
	case s.account == nil, s.plan.accountUID != "" && s.plan.accountUID != s.account.UID:
		return s.noSecretNeeded("service account is gone")
	case s.cacheIsStale():
		return decision{action: awaitCache, reason: "cache does not show the reference yet"}
	case s.account.DeletionTimestamp != nil:
		return decision{reason: "service account is being deleted"}
	case s.namespace == nil || s.namespace.Status.Phase == corev1.NamespaceTerminating:
		return decision{reason: "namespace is gone or terminating"}
	case s.hasLiveReference():
		return s.noSecretNeeded("service account refers to a token secret")
	case !s.selected():
		return s.noSecretNeeded("service account is not selected for a token secret")
	case len(s.missing) > 0 && s.live == nil:
		return decision{action: checkReferences, reason: "service account refers to a secret that the cache does not have"}
	default:
		return s.secretNeeded()
	}
}

// secretNeeded is the decision for an account that should have a token Secret and has
// none. It creates one only if there is certainly none that could be referred to.
func (s state) secretNeeded() decision {
	found := s.unreferenced()
	switch {
	case s.plan.secretUID != "":
		return decision{action: addReference, reason: "token secret was created for it", secret: s.plan.secretName, secretUID: s.plan.secretUID}
	case found != nil:
		return decision{action: addReference, reason: "token secret was created for it before", secret: found.Name, secretUID: found.UID}
	case s.plan.createUnknown():
		return decision{action: checkCreate, reason: "the API server did not say whether it created the token secret", secret: s.plan.secretName}
	case !s.account.CreationTimestamp.After(s.started) && s.now.Before(s.previousRequestsEnd):
		return decision{action: awaitRequests, reason: "a previous process may still be creating a token secret"}
	default:
		return decision{action: generate, reason: "service account has no token secret"}
	}
}

// noSecretNeeded is the decision for an account that needs no Secret of this controller:
// one that was created for it and never referred to is deleted.
func (s state) noSecretNeeded(reason string) decision {
	switch {
	case s.account != nil && s.account.UID == s.plan.accountUID && s.refersTo(s.plan.secretName):
		return decision{reason: reason}
	case s.plan.createUnknown():
		return decision{action: checkCreate, reason: reason, secret: s.plan.secretName}
	case s.plan.deletable():
		return decision{action: deleteSecret, reason: reason, secret: s.plan.secretName, secretUID: s.plan.secretUID}
	default:
		return decision{reason: reason}
	}
}

// startsWork returns true if d begins something for the account, which rate limit and
// write backoff may delay. Work that was begun is finished without delay.
func (s state) startsWork(d decision) bool {
	switch d.action {
	case generate:
		return true
	case checkReferences:
		return s.plan.secretUID == ""
	case addReference:
		return d.secret != s.plan.secretName
	default:
		return false
	}
}

// cacheIsStale returns true if the cached account is older than the reference that was
// written to it.
func (s state) cacheIsStale() bool {
	order, err := resourceversion.CompareResourceVersion(s.account.ResourceVersion, s.plan.accountVersion)
	return err == nil && order < 0
}

// hasLiveReference returns true if the account refers to a token Secret of its own. One
// that is marked invalid counts: a token that the cleaner invalidated is not replaced.
// One that is being deleted does not: the API server rejects its token.
func (s state) hasLiveReference() bool {
	for _, ref := range s.account.Secrets {
		if s.live[ref.Name] {
			return true
		}
		for _, secret := range s.secrets {
			if secret.Name == ref.Name && secret.DeletionTimestamp == nil && matchesUID(secret.AccountUID, s.account.UID) {
				return true
			}
		}
	}
	return false
}

func (s state) refersTo(name string) bool {
	return slices.ContainsFunc(s.account.Secrets, func(ref corev1.ObjectReference) bool { return ref.Name == name })
}

// unreferenced returns the oldest valid token Secret without a reference that a
// controller generated for this account, or nil.
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

// selected returns true if the account should have a token Secret. Its own label
// overrides that of its namespace; a value other than true and false is ignored.
func (s state) selected() bool {
	enabled, disabled := false, false
	for _, labels := range []map[string]string{s.namespace.Labels, s.account.Labels} {
		switch labels[api.AutoTokenLabel] {
		case "true":
			enabled, disabled = true, false
		case "false":
			enabled, disabled = false, true
		}
	}
	_, cleanedUp := s.account.Annotations[api.CleanedUpAnnotation]
	switch s.mode {
	case ModeAll:
		return enabled || !disabled && !cleanedUp
	case ModeLabelled:
		return enabled
	default:
		return false
	}
}

// matchesUID returns true if a Secret that names an account by the UID named, which may
// be empty, means the account with that UID.
func matchesUID(named, account types.UID) bool { return named == "" || named == account }
