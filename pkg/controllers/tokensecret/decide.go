package tokensecret

import (
	"crypto/sha256"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// state is what is known about one token Secret.
type state struct {
	// secret is the cached Secret, nil if there is none.
	secret *cache.TokenSecret
	owner  owner
	// doubted: a list left it without its account, together with many others.
	doubted bool
	token   tokenStatus
	// caSum is the SHA-256 of the CA bundle that Secrets should have.
	caSum [sha256.Size]byte
	// resign is the setting of the process, and resignAnnotation that of the Secret or its
	// namespace ("never", or empty).
	resign           Resign
	resignAnnotation string
	// repairWait is for how long ca.crt and namespace must not be written, because another client
	// keeps undoing that or the API server refuses it.
	repairWait time.Duration
	// note says that the API server accepts the token, for an annotation of the Secret; empty
	// unless it does.
	note string
	// keysIncomplete: it is not known yet which keys the API server publishes.
	keysIncomplete bool
	// newKeys: there are keys that the token was never verified with.
	newKeys bool
}

// Resign says which tokens are signed anew.
type Resign string

// The values of --resign-tokens.
const (
	ResignNever Resign = "never"
	// ResignDead is the tokens that the API server refuses for good, because no known key
	// verifies them or because they name a former ServiceAccount of that name.
	ResignDead Resign = "dead"
	// ResignAll is also the tokens of keys that only verify.
	ResignAll Resign = "all"
)

// tokenStatus is what is known about the token in a Secret.
type tokenStatus int

const (
	current   tokenStatus = iota // signed by the key that signs now, or no token
	older                        // signed by a key that only verifies now
	accepted                     // the API server accepts it, although it looks dead
	maybeDead                    // no known key verifies it as one of this Secret, or it names another UID
	dead                         // also, the API server refused it often enough
	misplaced                    // a known key verifies it, but it is for another Secret or account
)

// owner is the ServiceAccount that a Secret belongs to.
type owner struct {
	// account is its UID, empty if there is none.
	account types.UID
	// mistaken: the Secret names the UID of an account that was deleted before the Secret was
	// created. This process wrote it, from a cache that lagged.
	mistaken bool
	// notCached: a live GET found it, and the cache does not have it.
	notCached bool
	// otherUID is the UID of the account that has the name now, if the Secret names another UID.
	otherUID types.UID
	// missingFor is for how long there has been no account, as far as this process knows.
	missingFor time.Duration
}

type action int

const (
	none         action = iota
	fill                // write the whole object, with a token
	repair              // patch ca.crt or namespace of an object that has a token
	resign              // patch the token too
	noteReview          // patch the annotation about the review
	reviewToken         // ask the API server whether it accepts the token
	findKey             // find the key that verifies the token
	undoFill            // remove the token and the UID
	leaveAlone          // keep it as it is, and say so in an event
	awaitAccount        // give the account time to appear
	remove              // delete the object
)

func decide(s state) (action, string) {
	switch {
	case s.secret == nil:
		return none, "secret does not exist"
	case s.secret.Account == "":
		return none, "secret names no service account"
	case s.owner.mistaken:
		return undoFill, "it was filled for an account that is gone"
	case s.owner.account == "" || !possibleAccount(s.secret.Account):
		return decideOrphan(s)
	default:
		return decideContent(s)
	}
}

// decideOrphan decides on a Secret whose ServiceAccount does not exist.
func decideOrphan(s state) (action, string) {
	switch {
	case s.secret.DeletionTimestamp != nil:
		return none, "secret is being deleted"
	case !possibleAccount(s.secret.Account):
		return leaveAlone, impossibleAccountText
	case s.doubted && s.owner.missingFor < doubtedFor:
		return awaitAccount, "a list left many secrets without their service accounts"
	case s.owner.otherUID != "":
		return remove, "service account has another UID"
	case s.secret.AccountUID == "" && s.owner.missingFor < accountGrace:
		return awaitAccount, "service account may still be created"
	default:
		return remove, "service account does not exist"
	}
}

// decideContent decides on a Secret whose ServiceAccount exists.
func decideContent(s state) (action, string) {
	switch {
	case s.secret.Unfilled != nil:
		return fill, "token is missing"
	case s.secret.CASum != s.caSum && s.repairWait <= 0:
		return repair, "ca.crt differs" // before a new signature, which may have to wait
	case s.mayResign() && s.token == dead:
		return resign, "no known key verifies its token, or it names a former service account"
	case s.mayResign() && s.token == misplaced:
		return resign, "its token was made for another secret or service account"
	case s.mayResign() && s.resign == ResignAll && s.token == older:
		return resign, "its token was signed by an older key"
	case !s.secret.NamespaceRight && s.repairWait <= 0:
		return repair, "namespace differs"
	default:
		return decideCheck(s)
	}
}

// decideCheck decides whether more must be found out about the token of a Secret that needs no
// other write.
func decideCheck(s state) (action, string) {
	switch {
	case s.mayResign() && s.note != "" && s.note != s.secret.Annotations[api.ReviewedAnnotation]:
		return noteReview, "the API server accepts its token"
	case s.token == maybeDead && s.newKeys:
		return findKey, "keys have changed"
	case s.mayResign() && s.token == maybeDead:
		return decideReview(s)
	case s.token == accepted:
		return leaveAlone, "The token in this secret stays: no known key verifies it as one that was made for this secret, but the API server accepts it"
	case s.secret.DeletionTimestamp != nil:
		return none, "secret is being deleted"
	case s.token == maybeDead, s.token == dead:
		return leaveAlone, "No known key verifies the token in this secret as one that was made for it, or the token names a former service account. It stays, because " + s.whyNotResign()
	case s.token == misplaced:
		return leaveAlone, "The token in this secret was made for another secret or service account. It stays, because " + s.whyNotResign()
	default:
		return none, "secret is right"
	}
}

// decideReview decides on a token that may be dead.
func decideReview(s state) (action, string) {
	if s.keysIncomplete {
		return none, "the keys that the API server publishes are not known yet"
	}
	return reviewToken, "its token may be dead"
}

// requeueAfter returns when a new decision is needed although nothing may have changed; zero: never.
func (s state) requeueAfter(act action) (after time.Duration) {
	switch {
	case act == awaitAccount && s.doubted:
		after = doubtedFor - s.owner.missingFor
	case act == awaitAccount:
		after = accountGrace - s.owner.missingFor
	case s.owner.notCached:
		after = requeueNotCached
	}
	return earlier(after, s.repairWait)
}

// earlier returns the shorter of two delays. Zero is no delay, but never.
func earlier(a, b time.Duration) time.Duration {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}

// mayResign returns false if the settings forbid a new signature, if the cleaner invalidated the
// token, or if the Secret is being deleted.
func (s state) mayResign() bool {
	invalidated := s.secret.Labels[token.InvalidSinceLabel] != ""
	wanted := s.resign == ResignDead || s.resign == ResignAll
	return wanted && s.resignAnnotation != string(ResignNever) && !invalidated && s.secret.DeletionTimestamp == nil
}

// whyNotResign returns why mayResign returned false.
func (s state) whyNotResign() string {
	switch {
	case s.secret.Labels[token.InvalidSinceLabel] != "":
		return "it was marked as invalid with the label " + token.InvalidSinceLabel
	case s.resignAnnotation == string(ResignNever):
		return "the secret or its namespace has the annotation " + api.ResignAnnotation + "=never"
	default:
		return "no tokens are replaced (--resign-tokens=never)"
	}
}

const impossibleAccountText = "No service account can have the name in the annotation " + corev1.ServiceAccountNameKey +
	", so that this secret gets no token. Correct the name"

// possibleAccount returns true if a ServiceAccount can have this name.
func possibleAccount(name string) bool { return len(validation.IsDNS1123Subdomain(name)) == 0 }

// belongs returns true if secret belongs to the ServiceAccount with the name that secret names and
// the UID uid.
func belongs(secret *cache.TokenSecret, uid types.UID) bool {
	return secret.AccountUID == "" || secret.AccountUID == uid
}
