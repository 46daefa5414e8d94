package tokensecret

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/internal/tokenreview"
	"github.com/sakeeper/sakeeper/pkg/internal/workqueue"
	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/kube"
	"github.com/sakeeper/sakeeper/pkg/token"
)

const (
	// refusalsNeeded reviews, reviewInterval apart, must refuse a token before it is dead: 10
	// minutes for three. The API server may have keys that are not known here.
	refusalsNeeded = 3
	reviewInterval = 5 * time.Minute
	// formerRefusalsNeeded and formerReviewInterval are the same for a token that a known key verifies
	// and that names a former account: the API server has that key too.
	formerRefusalsNeeded = 2
	formerReviewInterval = 5 * time.Second
	// firstReviewDelay is how long a token must have looked dead before its first review: the API
	// server's cache accepts a token for another ten seconds after the keys or the account changed.
	firstReviewDelay = 15 * time.Second
	// refusalLifetime is how long a refusal counts if no other follows.
	refusalLifetime = time.Hour
)

// tokenReviewer asks the API server about tokens. Every review is a use of the token.
type tokenReviewer interface {
	Review(ctx context.Context, compact string) (tokenreview.Result, error)
}

// tokenCheck is what was found out about one token with one set of keys.
type tokenCheck struct {
	secret types.UID
	token  [sha256.Size]byte
	keys   string // id of the set

	// since is when the token was first seen to look dead.
	since time.Time
	// tried: the token was read live and verified with the keys. verifiedBy is the id of the key
	// that verified it then, empty if none did.
	tried      bool
	verifiedBy string
	// refusals is how often the API server has refused it, the last time at refused.
	refusals int
	refused  time.Time
	// accepted: the API server accepts it, by a key that is not known here.
	accepted bool
	// otherAccount: it is a valid token of another ServiceAccount.
	otherAccount bool
	// noted: the Secret was seen to have the note. If the note is removed after that, the token is
	// checked again.
	noted bool
}

// untilReview returns how long the next review must wait. The first one of a token of a former
// account does not wait, but see [tokenCheck.lagPossible].
func (t tokenCheck) untilReview(now time.Time, former bool) time.Duration {
	interval := reviewInterval
	if former {
		interval = formerReviewInterval
	}
	switch {
	case t.refusals > 0:
		return min(t.refused.Add(interval).Sub(now), interval)
	case former:
		return 0
	default:
		return t.lagPossible(now)
	}
}

// lagPossible returns for how long the API server may still accept the token from its cache.
func (t tokenCheck) lagPossible(now time.Time) time.Duration {
	return min(t.since.Add(firstReviewDelay).Sub(now), firstReviewDelay)
}

// expired returns true if the refusals are too old to count.
func (t tokenCheck) expired(now time.Time) bool {
	return t.refusals > 0 && t.refusals < refusalsNeeded && now.Sub(t.refused) > refusalLifetime
}

// note returns the annotation that saves the next process a review, empty unless the token was
// accepted. It is valid for this token and these keys only.
func (t tokenCheck) note() string {
	if t.accepted {
		return t.fingerprint() + " accepted"
	}
	return ""
}

// continueFrom returns the check with the result in note, unless that is about another token or
// other keys. Anything else, such as the refusals that former versions noted, is ignored.
func (t tokenCheck) continueFrom(note string) tokenCheck {
	t.accepted = note == t.fingerprint()+" accepted"
	return t
}

// fingerprint identifies the token and the keys. Neither can be derived from it.
func (t tokenCheck) fingerprint() string {
	hash := sha256.New()
	hash.Write(t.token[:])
	hash.Write([]byte(t.keys))
	return hex.EncodeToString(hash.Sum(nil)[:16])
}

// tokenChecks holds the checks of all Secrets. It is safe for concurrent use.
type tokenChecks struct {
	mu       sync.Mutex
	bySecret map[toolscache.ObjectName]tokenCheck
}

func newTokenChecks() *tokenChecks {
	return &tokenChecks{bySecret: map[toolscache.ObjectName]tokenCheck{}}
}

// get returns the check of the token of secret with those keys. It is a new one, or one from the
// note on the Secret, if there is none yet or its result no longer counts.
func (c *tokenChecks) get(secret *cache.TokenSecret, set *keys.Set, now time.Time) tokenCheck {
	c.mu.Lock()
	defer c.mu.Unlock()
	key, note := toolscache.MetaObjectToName(secret), secret.Annotations[api.ReviewedAnnotation]
	fresh := tokenCheck{secret: secret.UID, token: secret.Token.Sum, keys: set.ID()}
	found := c.bySecret[key]
	switch {
	case found.secret != fresh.secret, found.keys != fresh.keys, found.token != fresh.token, found.expired(now):
		return fresh.continueFrom(note)
	case found.noted && note != found.note():
		return fresh.continueFrom(note)
	case !found.noted && note != "" && note == found.note():
		found.noted = true
		c.bySecret[key] = found
	}
	return found
}

func (c *tokenChecks) store(secret *cache.TokenSecret, check tokenCheck) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bySecret[toolscache.MetaObjectToName(secret)] = check
}

func (c *tokenChecks) forget(secret toolscache.ObjectName) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.bySecret, secret)
}

// tokenInfo is what is known about one token.
type tokenInfo struct {
	none       bool   // there is no token
	own        bool   // it was made for this Secret
	other      bool   // it is a legacy token for another Secret or account
	verifiedBy string // id of a key, empty if no known key verifies it
	staleUID   bool   // it names another UID than the ServiceAccount has
	check      tokenCheck
}

// status returns the status of the token, given the id of the key that signs now.
func (i tokenInfo) status(signing string) tokenStatus {
	needed := refusalsNeeded
	if i.former() {
		needed = formerRefusalsNeeded
	}
	good := i.own && i.verifiedBy != "" && !i.staleUID
	switch {
	case i.none, good && i.verifiedBy == signing:
		return current
	case good:
		return older
	case i.other && i.verifiedBy != "", i.check.otherAccount:
		return misplaced
	case i.check.accepted:
		return accepted
	case i.check.refusals >= needed:
		return dead
	default:
		return maybeDead
	}
}

// former returns true if a known key verifies the token, and it names the UID of a former account.
func (i tokenInfo) former() bool { return i.own && i.verifiedBy != "" && i.staleUID }

func (c *Controller) infoOf(secret *cache.TokenSecret, account types.UID, set *keys.Set) tokenInfo {
	return tokenInfo{
		none: secret.Unfilled != nil, own: secret.Token.Own, other: secret.Token.Other, verifiedBy: c.verifiedBy(secret, set), staleUID: secret.Token.ClaimedUID != account,
		check: c.checkOf(secret, set),
	}
}

// verifiedBy returns the id of the key of set that verifies the token, empty if none is known to.
func (c *Controller) verifiedBy(secret *cache.TokenSecret, set *keys.Set) string {
	if _, ok := set.Lookup(secret.Token.VerifiedBy); ok {
		return secret.Token.VerifiedBy
	}
	return c.checkOf(secret, set).verifiedBy
}

func (c *Controller) checkOf(secret *cache.TokenSecret, set *keys.Set) tokenCheck {
	return c.checks.get(secret, set, c.cfg.Clock.Now())
}

// reviewToken does one step to find out whether a token is dead: it verifies the token with the
// known keys and, if none does, asks the API server. If its key was published since these were read,
// the token is checked again with it.
func (c *Controller) reviewToken(ctx context.Context, cached *cache.TokenSecret, account types.UID) (requeueAfter time.Duration, err error) {
	c.cfg.Tokens.Refresh()
	set, now := c.known(), c.cfg.Clock.Now()
	former := c.infoOf(cached, account, set).former()
	check := c.checkOf(cached, set)
	if check.refusals == 0 && check.since.IsZero() {
		check.since = now
		c.checks.store(cached, check)
	}
	if wait := check.untilReview(now, former); wait > 0 {
		return wait, nil
	}
	compact, wait, err := c.readAndVerify(ctx, cached, set)
	if compact == "" {
		return wait, err
	}
	check = c.checkOf(cached, set)
	review, err := c.review(ctx, compact)
	if err != nil {
		return 0, fmt.Errorf("check the token of secret %s: %w", klog.KObj(cached), err)
	}
	switch {
	case review.Username != "" && former && check.lagPossible(now) > 0:
		return check.lagPossible(now), nil
	case strings.HasPrefix(review.Username, accountPrefix) && review.Username != claimsOf(cached, account).Subject():
		klog.FromContext(ctx).V(2).Info("Reviewed a token: it is one of another service account", "secret", klog.KObj(cached), "user", review.Username)
		check.otherAccount = true
	case review.Username != "":
		klog.FromContext(ctx).Info("Kept a token that no known key verifies: the API server accepts it", "secret", klog.KObj(cached), "user", review.Username)
		check.accepted = true
	default:
		check.refusals++
		check.refused = now
		klog.FromContext(ctx).V(2).Info("Reviewed a token that may be dead: the API server refuses it", "secret", klog.KObj(cached), "serviceAccountUID", account,
			"refusals", check.refusals, "needed", refusalsNeeded, "reason", review.Reason)
	}
	check.noted = false
	c.storeAndRequeue(cached, check)
	return 0, nil
}

// accountPrefix begins the user names of ServiceAccounts.
const accountPrefix = "system:serviceaccount:"

// review asks the API server about a token as clients send it: without white space around it, which
// HTTP drops. What no client can send is refused.
func (c *Controller) review(ctx context.Context, compact string) (tokenreview.Result, error) {
	sent := strings.TrimSpace(compact)
	if sent == "" || !utf8.ValidString(sent) {
		return tokenreview.Result{Reason: "not a token"}, nil
	}
	return c.reviewer.Review(ctx, sent)
}

// ofOtherAccount returns true if compact is a bound token of another ServiceAccount that a known key
// verifies.
func ofOtherAccount(cached *cache.TokenSecret, verifier *token.Verifier, compact string) bool {
	issuer, err := token.UnverifiedIssuer(compact)
	if err != nil || issuer == token.LegacyIssuer {
		return false
	}
	claims, err := verifier.Verify(compact, issuer)
	return err == nil && claims.ServiceAccount.Name != "" &&
		(claims.Namespace != cached.Namespace || claims.ServiceAccount.Name != cached.Account)
}

// findKey verifies a token with keys that are new, without asking the API server about it.
func (c *Controller) findKey(ctx context.Context, cached *cache.TokenSecret) (requeueAfter time.Duration, err error) {
	compact, requeueAfter, err := c.readAndVerify(ctx, cached, c.known())
	if compact != "" {
		c.enqueue(cached) // for a review, unless the settings forbid it
	}
	return requeueAfter, err
}

// readAndVerify reads the token live, because it is not cached, and verifies it with keys that may
// be newer than the cached Secret. It returns the token if no key verifies it that did not before.
func (c *Controller) readAndVerify(ctx context.Context, cached *cache.TokenSecret, set *keys.Set) (compact string, requeueAfter time.Duration, err error) {
	if wait := c.limiters.checks.When(toolscache.MetaObjectToName(cached)); wait > 0 {
		return "", wait, workqueue.ErrRequeueLater
	}
	live, err := c.cfg.Client.Secrets(cached.Namespace).Get(ctx, cached.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return "", 0, nil
	case err != nil:
		return "", 0, fmt.Errorf("get secret %s: %w", klog.KObj(cached), kube.Redact(err))
	}
	data := live.Data[corev1.ServiceAccountTokenKey]
	if live.UID != cached.UID || sha256.Sum256(data) != cached.Token.Sum {
		return "", 0, nil // it changed: its event causes a new decision
	}
	check, unverified := c.checkOf(cached, set), c.verifiedBy(cached, set) == ""
	check.tried = true
	verifier := token.NewVerifier(func() *keys.Set { return set })
	if ofOtherAccount(cached, verifier, string(data)) {
		check.otherAccount = true
		c.storeAndRequeue(cached, check)
		return "", 0, nil
	}
	facts, err := verifier.Inspect(string(data))
	if err == nil && unverified && facts.VerifiedBy != "" {
		check.verifiedBy = facts.VerifiedBy
		c.storeAndRequeue(cached, check)
		return "", 0, nil
	}
	c.checks.store(cached, check)
	return string(data), 0, nil
}

// storeAndRequeue stores a result and has the Secret synced again with it.
func (c *Controller) storeAndRequeue(secret *cache.TokenSecret, check tokenCheck) {
	c.checks.store(secret, check)
	c.enqueue(secret)
}
