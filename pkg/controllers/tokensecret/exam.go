package tokensecret

import (
	"context"
	"crypto/sha256"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/sakeeper/sakeeper/pkg/informers"
	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/kube"
	"github.com/sakeeper/sakeeper/pkg/token"
	"github.com/sakeeper/sakeeper/pkg/tokenreview"
)

// A token that looks dead here may still be good at the API server, which may know
// keys that we do not. It is signed anew only after refusalsNeeded reviews that lie
// examInterval apart: 10 minutes for three.
const (
	refusalsNeeded = 3
	examInterval   = 5 * time.Minute
)

// Reviewer asks the API server about tokens. Every review is a use of the token.
type Reviewer interface {
	Ask(ctx context.Context, compact string) (tokenreview.Answer, error)
}

// exam is what was found out about one token with one set of keys, for which a
// token is examined once.
type exam struct {
	token [sha256.Size]byte
	keys  *keys.Set

	refusals int
	next     time.Time // of the next review
	// verifiedBy is the id of the known key that verified it.
	verifiedBy string
	// accepted: the API server takes it, by a key that is not known here.
	accepted bool
}

// exams are the exams of all Secrets by UID.
type exams struct {
	mu       sync.Mutex
	bySecret map[types.UID]exam
}

func newExams() *exams { return &exams{bySecret: map[types.UID]exam{}} }

// of is the exam of that token with those keys, a new one where there was none.
func (e *exams) of(secret *informers.TokenSecret, set *keys.Set) exam {
	e.mu.Lock()
	defer e.mu.Unlock()
	if found := e.bySecret[secret.UID]; found.keys != nil && found.keys.Equal(set) && found.token == secret.Token.Sum {
		return found
	}
	return exam{token: secret.Token.Sum, keys: set}
}

func (e *exams) note(secret types.UID, result exam) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.bySecret[secret] = result
}

func (e *exams) forget(secret types.UID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.bySecret, secret)
}

// judgeToken says what the token of a Secret is, as far as that is known.
func (c *Controller) judgeToken(secret *informers.TokenSecret, owner owner) standing {
	set := c.cfg.Keys()
	found := c.exams.of(secret, set)
	verifiedBy := c.verifiedBy(secret, set)
	switch {
	case !secret.Token.Own:
		return foreign
	case verifiedBy == "" || secret.Token.ClaimedUID != owner.account:
		switch {
		case found.accepted:
			return foreign // the API server takes it for a reason that is not ours to know
		case found.refusals >= refusalsNeeded:
			return dead
		default:
			return suspect
		}
	case verifiedBy != set.Signing().PublicKey().ID():
		return older
	default:
		return current
	}
}

// verifiedBy is the id of the key of set that verifies the token, empty when none is
// known to.
func (c *Controller) verifiedBy(secret *informers.TokenSecret, set *keys.Set) string {
	if _, ok := set.Lookup(secret.Token.VerifiedBy); ok {
		return secret.Token.VerifiedBy
	}
	return c.exams.of(secret, set).verifiedBy
}

// examine takes one step in finding out whether a suspect token is dead: the token
// is read live, because it is not cached, tried with the keys of this moment, which
// may be newer than the cache, and shown to the API server.
func (c *Controller) examine(ctx context.Context, cached *informers.TokenSecret, account types.UID) (time.Duration, error) {
	set := c.cfg.Keys()
	found := c.exams.of(cached, set)
	now := c.cfg.Clock.Now()
	if wait := found.next.Sub(now); wait > 0 {
		return wait, nil
	}
	if wait := c.rests.exams.Wait(cache.MetaObjectToName(cached)); wait > 0 {
		return wait, nil
	}
	live, err := c.cfg.Client.Secrets(cached.Namespace).Get(ctx, cached.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("get secret %s: %w", klog.KObj(cached), kube.Withhold(err))
	}
	compact := live.Data[corev1.ServiceAccountTokenKey]
	if live.UID != cached.UID || sha256.Sum256(compact) != cached.Token.Sum {
		return 0, nil // it changed: its event decides anew
	}
	facts, err := token.NewVerifier(func() *keys.Set { return set }).Inspect(string(compact))
	if err == nil && facts.VerifiedBy != "" && c.verifiedBy(cached, set) == "" {
		found.verifiedBy = facts.VerifiedBy
		return c.conclude(cached, found), nil
	}
	answer, err := c.cfg.Reviewer.Ask(ctx, string(compact))
	if err != nil {
		return 0, fmt.Errorf("examine the token of secret %s: %w", klog.KObj(cached), err)
	}
	if answer.Username != "" {
		klog.FromContext(ctx).Info("Left a token alone that no known key verifies: the API server accepts it", "secret", klog.KObj(cached))
		found.accepted = true
		return c.conclude(cached, found), nil
	}
	found.refusals++
	found.next = now.Add(examInterval)
	klog.FromContext(ctx).V(2).Info("Examined a token that looks dead", "secret", klog.KObj(cached), "serviceAccountUID", account,
		"refusals", found.refusals, "needed", refusalsNeeded, "reason", answer.Words)
	if found.refusals >= refusalsNeeded {
		return c.conclude(cached, found), nil
	}
	c.exams.note(cached.UID, found)
	return examInterval, nil
}

// conclude ends an exam, and lets the Secret be judged by it.
func (c *Controller) conclude(secret *informers.TokenSecret, result exam) time.Duration {
	c.exams.note(secret.UID, result)
	c.secrets.Add(cache.MetaObjectToName(secret))
	return 0
}
