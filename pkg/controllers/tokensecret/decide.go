package tokensecret

import (
	"crypto/sha256"

	"k8s.io/apimachinery/pkg/types"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// state is what is known of one token Secret.
type state struct {
	// secret is the Secret, nil when there is none.
	secret *cache.TokenSecret
	owner  owner
	token  standing
	// caSum is the SHA-256 of the CA bundle that Secrets should have.
	caSum [sha256.Size]byte
	// resign is the setting of the process, and settledToken that of the Secret or its
	// namespace ("never", or nothing).
	resign       Resign
	settledToken string
	// repairWaits: what would be repaired has to wait, or cannot be.
	repairWaits bool
	// note is what should be noted of reviews of the token on the Secret, empty:
	// nothing. untried: there are keys that it was never tried with.
	note    string
	untried bool
}

// Resign says which tokens are signed anew.
type Resign string

// The values of --resign-tokens.
const (
	ResignNever Resign = "never"
	// ResignDead is those that the API server refuses for good, because no known key
	// verifies them or because they name a former ServiceAccount of that name.
	ResignDead Resign = "dead"
	// ResignAll is also those of keys that only verify.
	ResignAll Resign = "all"
)

// standing is what is known of the token in a Secret.
type standing int

const (
	foreign standing = iota // not ours to judge
	current                 // signed by the key that signs now
	older                   // signed by a key that only verifies now
	suspect                 // no known key verifies it, or its UID is stale
	dead                    // and the API server keeps refusing it
)

// owner is the ServiceAccount that a Secret belongs to.
type owner struct {
	// account is its UID, empty when there is none.
	account types.UID
	// mistaken: the Secret names the UID of an account that was gone before the
	// Secret was made; this process wrote it, from a cache that lagged.
	mistaken bool
	// unseen: it was found live, and the cache does not have it.
	unseen bool
}

type action int

const (
	none       action = iota
	fill              // write the whole object, with a token
	repair            // patch ca.crt or namespace of an object that has a token
	resign            // patch the token too
	noteReview        // note what was found out about the token
	examine           // find out more about the token
	identify          // find out which key verifies it, without asking anybody
	release           // take the token and the UID back
	remove            // delete the object
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
	default:
		return decideContent(s)
	}
}

// decideContent is about a Secret whose ServiceAccount exists.
func decideContent(s state) (action, string) {
	switch {
	case s.secret.Unfilled != nil:
		return fill, "token is missing"
	case s.secret.CASum != s.caSum && !s.repairWaits:
		return repair, "ca.crt differs" // first, because signing anew may have to wait
	case s.mayResign() && s.token == dead:
		return resign, "no known key verifies its token, or it names a former service account"
	case s.mayResign() && s.resign == ResignAll && s.token == older:
		return resign, "its token was signed by an older key"
	case !s.secret.HasNamespace && !s.repairWaits:
		return repair, "namespace is missing"
	default:
		return decideExam(s)
	}
}

// decideExam is about a token that nothing is to be done about, as far as is known.
func decideExam(s state) (action, string) {
	switch {
	case s.mayResign() && s.note != "" && s.note != s.secret.Annotations[api.ReviewedAnnotation]:
		return noteReview, "the API server was asked about its token"
	case s.token == suspect && s.untried:
		return identify, "keys have changed"
	case s.mayResign() && s.token == suspect:
		return examine, "its token may be dead"
	default:
		return none, "secret is right"
	}
}

// mayResign: not where people said so, and not a token that was withdrawn on
// purpose.
func (s state) mayResign() bool {
	marked := s.secret.Labels[token.InvalidSinceLabel] != ""
	wanted := s.resign == ResignDead || s.resign == ResignAll
	return wanted && s.settledToken != string(ResignNever) && !marked && s.secret.DeletionTimestamp == nil
}

// belongs tells whether a ServiceAccount of the name that secret names, with the
// UID uid, is the one that secret means.
func belongs(secret *cache.TokenSecret, uid types.UID) bool {
	return secret.AccountUID == "" || secret.AccountUID == uid
}
