package tokensecret

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

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

// A token that looks dead here may still be good at the API server, which may know
// keys that we do not. It is signed anew only after refusalsNeeded reviews that lie
// examInterval apart: 10 minutes for three.
const (
	refusalsNeeded = 3
	examInterval   = 5 * time.Minute
	// settle is how long before the first review a token must have looked dead: what the
	// API server accepted before the keys or the account changed, it accepts for another
	// ten seconds, out of its cache.
	settle = 15 * time.Second
	// lapse is when refusals no longer count, because the next one was not heard.
	lapse = time.Hour
)

// tokenReviewer asks the API server about tokens. Every review is a use of the token.
type tokenReviewer interface {
	Review(ctx context.Context, compact string) (tokenreview.Result, error)
}

// exam is what was found out about one token with one set of keys, for which a
// token is examined once.
type exam struct {
	secret types.UID
	token  [sha256.Size]byte
	keys   string // id of the set

	// begun is when the token was first seen to look dead.
	begun time.Time
	// tried: the token was read live and tried with the keys, and verifiedBy is the id
	// of the one that verified it.
	tried      bool
	verifiedBy string
	// refusals is how often the API server has refused it, the last time at refused.
	refusals int
	refused  time.Time
	// accepted: the API server takes it, by a key that is not known here.
	accepted bool
	// noted: the Secret was seen to say so. Who removes that note afterwards wants the
	// token to be examined again.
	noted bool
}

// wait is how long the next review must be put off.
func (e exam) wait(now time.Time) time.Duration {
	if e.refusals == 0 {
		return min(e.begun.Add(settle).Sub(now), settle)
	}
	return min(e.refused.Add(examInterval).Sub(now), examInterval)
}

// lapsed tells whether its refusals are too old to count with newer ones.
func (e exam) lapsed(now time.Time) bool {
	return e.refusals > 0 && e.refusals < refusalsNeeded && now.Sub(e.refused) > lapse
}

// note is what the Secret should say of the exam, so that the next process goes on
// with it; empty: nothing. It is about this token and these keys only.
func (e exam) note() string {
	switch {
	case e.accepted:
		return e.subject() + " accepted"
	case e.refusals > 0:
		return fmt.Sprintf("%s refused %d %s", e.subject(), e.refusals, e.refused.UTC().Format(time.RFC3339))
	default:
		return ""
	}
}

// resume takes over a note, unless it is about something else, too old, or from a clock
// that is ahead of ours. The last refusal must be heard by the process that acts on it:
// anybody may have written the note.
func (e exam) resume(note string, now time.Time) exam {
	fields := strings.Fields(note)
	switch {
	case len(fields) < 2 || fields[0] != e.subject():
	case len(fields) == 2 && fields[1] == "accepted":
		e.accepted = true
	case len(fields) == 4 && fields[1] == "refused":
		resumed := e
		var errTimes, errDate error
		resumed.refusals, errTimes = strconv.Atoi(fields[2])
		resumed.refused, errDate = time.Parse(time.RFC3339, fields[3])
		resumed.refusals = min(resumed.refusals, refusalsNeeded-1)
		if errTimes == nil && errDate == nil && resumed.refusals > 0 && !resumed.refused.After(now) && !resumed.lapsed(now) {
			return resumed
		}
	}
	return e
}

// subject stands for token and keys. Neither can be found out from it.
func (e exam) subject() string {
	hash := sha256.New()
	hash.Write(e.token[:])
	hash.Write([]byte(e.keys))
	return hex.EncodeToString(hash.Sum(nil)[:16])
}

// exams are the exams of all Secrets.
type exams struct {
	mu       sync.Mutex
	bySecret map[toolscache.ObjectName]exam
}

func newExams() *exams { return &exams{bySecret: map[toolscache.ObjectName]exam{}} }

// of is the exam of that token with those keys, a new one where there was none, or
// where what came of it does not count any more.
func (e *exams) of(secret *cache.TokenSecret, set *keys.Set, now time.Time) exam {
	e.mu.Lock()
	defer e.mu.Unlock()
	key, note := toolscache.MetaObjectToName(secret), secret.Annotations[api.ReviewedAnnotation]
	begun := exam{secret: secret.UID, token: secret.Token.Sum, keys: set.ID()}
	found := e.bySecret[key]
	switch {
	case found.secret != begun.secret, found.keys != begun.keys, found.token != begun.token, found.lapsed(now):
		return begun.resume(note, now)
	case found.noted && note != found.note():
		return begun.resume(note, now)
	case !found.noted && note != "" && note == found.note():
		found.noted = true
		e.bySecret[key] = found
	}
	return found
}

func (e *exams) keep(secret *cache.TokenSecret, result exam) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.bySecret[toolscache.MetaObjectToName(secret)] = result
}

func (e *exams) forget(secret toolscache.ObjectName) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.bySecret, secret)
}

// evidence is what is known of one token.
type evidence struct {
	own        bool   // it was made for this Secret
	verifiedBy string // id of a key; empty: no known key
	staleUID   bool   // it names another UID than the ServiceAccount has
	exam       exam
}

// standing says what the token is, where tokens are signed by that key.
func (e evidence) standing(signing string) standing {
	suspicious := e.verifiedBy == "" || e.staleUID
	switch {
	case !e.own:
		return foreign
	case suspicious && e.exam.accepted:
		return foreign // the API server takes it for a reason that is not ours to know
	case suspicious && e.exam.refusals >= refusalsNeeded:
		return dead
	case suspicious:
		return suspect
	case e.verifiedBy != signing:
		return older
	default:
		return current
	}
}

// evidenceOf is what is known of the token of a Secret, with these keys.
func (c *Controller) evidenceOf(secret *cache.TokenSecret, account types.UID, set *keys.Set) evidence {
	return evidence{
		own: secret.Token.Own, verifiedBy: c.verifiedBy(secret, set), staleUID: secret.Token.ClaimedUID != account,
		exam: c.examOf(secret, set),
	}
}

// verifiedBy is the id of the key of set that verifies the token, empty when none is
// known to.
func (c *Controller) verifiedBy(secret *cache.TokenSecret, set *keys.Set) string {
	if _, ok := set.Lookup(secret.Token.VerifiedBy); ok {
		return secret.Token.VerifiedBy
	}
	return c.examOf(secret, set).verifiedBy
}

func (c *Controller) examOf(secret *cache.TokenSecret, set *keys.Set) exam {
	return c.exams.of(secret, set, c.cfg.Clock.Now())
}

// examine takes one step in finding out whether a suspect token is dead: it is tried
// with the keys of this moment, and else shown to the API server.
func (c *Controller) examine(ctx context.Context, cached *cache.TokenSecret, account types.UID) (time.Duration, error) {
	set, now := c.cfg.Keys(), c.cfg.Clock.Now()
	begun := c.examOf(cached, set)
	if begun.refusals == 0 && begun.begun.IsZero() {
		begun.begun = now
		c.exams.keep(cached, begun)
	}
	if wait := begun.wait(now); wait > 0 {
		return wait, nil
	}
	compact, wait, err := c.try(ctx, cached, set)
	if compact == "" {
		return wait, err
	}
	found := c.examOf(cached, set)
	answer, err := c.reviewer.Review(ctx, compact)
	if err != nil {
		return 0, fmt.Errorf("examine the token of secret %s: %w", klog.KObj(cached), err)
	}
	if answer.Username != "" {
		klog.FromContext(ctx).Info("Left a token alone that no known key verifies: the API server accepts it", "secret", klog.KObj(cached))
		found.accepted = true
	} else {
		found.refusals++
		found.refused = now
		klog.FromContext(ctx).V(2).Info("Examined a token that looks dead", "secret", klog.KObj(cached), "serviceAccountUID", account,
			"refusals", found.refusals, "needed", refusalsNeeded, "reason", answer.Reason)
	}
	found.noted = false
	c.conclude(cached, found)
	return 0, nil
}

// identify tries a token with keys that are new, without asking anybody.
func (c *Controller) identify(ctx context.Context, cached *cache.TokenSecret) (time.Duration, error) {
	compact, wait, err := c.try(ctx, cached, c.cfg.Keys())
	if compact != "" {
		c.enqueueSecret(cached) // to be examined, where that is wanted
	}
	return wait, err
}

// try reads the token live, because it is not cached, and tries it with keys that may
// be newer than the cache. It returns the token when there is more to find out.
func (c *Controller) try(ctx context.Context, cached *cache.TokenSecret, set *keys.Set) (compact string, wait time.Duration, err error) {
	if wait := c.rests.exams.When(toolscache.MetaObjectToName(cached)); wait > 0 {
		return "", wait, workqueue.ErrRequeueLater
	}
	live, err := c.cfg.Client.Secrets(cached.Namespace).Get(ctx, cached.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return "", 0, nil
	case err != nil:
		return "", 0, fmt.Errorf("get secret %s: %w", klog.KObj(cached), kube.Redact(err))
	}
	held := live.Data[corev1.ServiceAccountTokenKey]
	if live.UID != cached.UID || sha256.Sum256(held) != cached.Token.Sum {
		return "", 0, nil // it changed: its event decides anew
	}
	found, unverified := c.examOf(cached, set), c.verifiedBy(cached, set) == ""
	found.tried = true
	facts, err := token.NewVerifier(func() *keys.Set { return set }).Inspect(string(held))
	if err == nil && unverified && facts.VerifiedBy != "" {
		found.verifiedBy = facts.VerifiedBy
		c.conclude(cached, found)
		return "", 0, nil
	}
	c.exams.keep(cached, found)
	return string(held), 0, nil
}

// conclude keeps what was found out, and lets the Secret be judged by it.
func (c *Controller) conclude(secret *cache.TokenSecret, result exam) {
	c.exams.keep(secret, result)
	c.secrets.Add(toolscache.MetaObjectToName(secret))
}
