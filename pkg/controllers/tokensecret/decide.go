package tokensecret

import (
	"crypto/sha256"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sakeeper/sakeeper/pkg/informers"
)

// state is what is known of one token Secret.
type state struct {
	// secret is the Secret, nil when there is none.
	secret *informers.TokenSecret
	owner  owner
	// caSum is the SHA-256 of the CA bundle that Secrets should have.
	caSum [sha256.Size]byte
}

// owner is the ServiceAccount that a Secret belongs to.
type owner struct {
	// account is its UID, empty when there is none.
	account types.UID
	// mistaken: the Secret names the UID of an account that was gone before the
	// Secret was made; this process wrote it, from a cache that lagged.
	mistaken bool
}

type action int

const (
	none    action = iota
	fill           // write the whole object, with a token
	repair         // patch ca.crt or namespace of an object that has a token
	release        // take the token and the UID back
	remove         // delete the object
)

func decide(s state) (action, string) {
	switch {
	case s.secret == nil:
		return none, "secret does not exist"
	case s.secret.Account == "":
		return none, "secret names no service account"
	case s.owner.mistaken:
		return release, "it was filled for an account that is gone"
	case s.owner.account == "" && s.secret.DeletionTimestamp != nil:
		return none, "secret is being deleted"
	case s.owner.account == "":
		return remove, "service account does not exist"
	case s.secret.Unfilled != nil:
		return fill, "token is missing"
	case s.secret.CASum != s.caSum:
		return repair, "ca.crt differs"
	case !s.secret.HasNamespace:
		return repair, "namespace is missing"
	default:
		return none, "secret is right"
	}
}

// belongs tells whether a ServiceAccount of the name that secret names, with the
// UID uid, is the one that secret means.
func belongs(secret *informers.TokenSecret, uid types.UID) bool {
	return secret.AccountUID == "" || secret.AccountUID == uid
}

// staleness says what must be known before a reference may go.
type staleness int

const (
	keep staleness = iota // the Secret exists, or the name may be meant for later
	ask                   // stale if the API server has no such Secret
	drop                  // stale
)

// reference is what is known of one name in ServiceAccount.secrets.
type reference struct {
	account, name string
	cached        bool // there is a token Secret of that name
	seenGoing     bool // this process saw that token Secret of this account go
}

func judge(r reference) staleness {
	switch {
	case r.cached:
		return keep
	case r.seenGoing:
		return drop
	case isGenerated(r.account, r.name):
		return ask
	default:
		return keep
	}
}

const (
	// suffixAlphabet and suffixLength are those of names that the API machinery
	// generates (k8s.io/apimachinery/pkg/util/rand).
	suffixAlphabet = "bcdfghjklmnpqrstvwxz2456789"
	suffixLength   = 5
)

// isGenerated tells whether name is one that a token controller made up for
// account. People can make up such a name too, but not by accident.
func isGenerated(account, name string) bool {
	suffix, ok := strings.CutPrefix(name, account+"-token-")
	return ok && len(suffix) == suffixLength && strings.Trim(suffix, suffixAlphabet) == ""
}

// without is refs less those whose name is stale, in the same order.
func without(refs []corev1.ObjectReference, stale map[string]bool) []corev1.ObjectReference {
	var left []corev1.ObjectReference
	for _, ref := range refs {
		if !stale[ref.Name] {
			left = append(left, ref)
		}
	}
	return left
}
