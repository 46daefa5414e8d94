package signingkey

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	typedauthenticationv1 "k8s.io/client-go/kubernetes/typed/authentication/v1"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/internal/tokenreview"
	"github.com/sakeeper/sakeeper/pkg/internal/workqueue"
	"github.com/sakeeper/sakeeper/pkg/kube"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// Name is the name of the queue, and identifies its requests in audit logs.
const Name = "token-canary"

const (
	// maxLag is how long API servers may refuse a valid token because their caches lag.
	maxLag = time.Minute
	// minReviewDelay and maxReviewDelay bound the time between two reviews of a refused token.
	// The lag is mostly milliseconds, and all other writes wait.
	minReviewDelay = 50 * time.Millisecond
	maxReviewDelay = 30 * time.Second
	// retryDelay is the delay of everything else.
	retryDelay = time.Second
	// signErrorAge is when an error of the signer is outdated: its caller would have retried
	// by then if it still had a token to write.
	signErrorAge = 10 * time.Minute
	// wakeBatch is the number of waiting writes that are woken when a first token is dropped,
	// or after an error of the signer.
	wakeBatch = 16
)

// ErrWaiting is returned if the token was not written because the first token is not accepted
// yet. The caller returns it from its sync, and is woken when it should retry.
var ErrWaiting = fmt.Errorf("waiting for the API server to accept the first token of the signing key: %w", workqueue.ErrRequeueLater)

var errNotAccepted = errors.New("waiting for the API server to accept the first token of the signing key")

// Signer makes legacy tokens.
type Signer interface {
	SignLegacy(ctx context.Context, claims token.LegacyClaims) (string, error)
}

// tokenReviewer asks the API server about tokens.
type tokenReviewer interface {
	Review(ctx context.Context, compact string) (tokenreview.Result, error)
}

// Config configures a [Check]. All fields but Registerer are required.
type Config struct {
	Signer Signer
	// TokenReviews creates the reviews of first tokens.
	TokenReviews typedauthenticationv1.TokenReviewInterface
	// Secrets are read live to see whether a refused first token is still in its Secret,
	// and patched to remove it.
	Secrets  typedcorev1.SecretsGetter
	Recorder record.EventRecorder
	Clock    clock.PassiveClock
	// Registerer gets the metrics. Nil: they are not exported.
	Registerer prometheus.Registerer
}

// Check is used for every write of a token. It is safe for concurrent use.
type Check struct {
	cfg      Config
	reviewer tokenReviewer
	queue    *workqueue.Queue[task]

	mu sync.Mutex
	// accepted is the id of the key that the API server accepts; empty: not known yet.
	accepted string
	// first is the first token of the key while it is being checked, or nil.
	first *firstToken
	// former are first tokens of former keys. They are removed if the API server refuses
	// them.
	former []*firstToken
	// signErr is the error of the last attempt to sign. None is made before pausedUntil.
	signErr     error
	pausedUntil time.Time
	// waiting are the wake functions of the waiting writes, by Secret.
	waiting map[secretName]func()
}

// task is the key of the queue.
type task int

const (
	reviewFirst  task = iota // review the first token
	removeFormer             // remove refused first tokens of former keys
)

type secretName struct{ namespace, name string }

// firstToken is the first token of a key. Its fields are guarded by Check.mu, except compact
// and claims, which do not change after it is written.
type firstToken struct {
	claims  token.LegacyClaims
	keyID   string
	compact string
	written bool
	// refusedSince is the time of the first refusal, or zero.
	refusedSince time.Time
	refused      bool
	// reason is why it is not accepted, for messages; empty: no review has ended yet.
	reason string
}

// New returns a Check. It reviews nothing before Run.
func New(cfg Config) (*Check, error) {
	if cfg.Signer == nil || cfg.TokenReviews == nil || cfg.Secrets == nil || cfg.Recorder == nil || cfg.Clock == nil {
		return nil, errors.New("signingkey: Signer, TokenReviews, Secrets, Recorder and Clock are required")
	}
	c := &Check{cfg: cfg, reviewer: tokenreview.New(cfg.TokenReviews, "canary", cfg.Registerer), waiting: map[secretName]func(){}}
	var err error
	c.queue, err = workqueue.New(workqueue.Config[task]{Name: Name, Sync: c.sync, MaxDelay: maxReviewDelay, Registerer: cfg.Registerer})
	return c, err
}

// Run reviews first tokens until ctx ends.
func (c *Check) Run(ctx context.Context) error { return c.queue.Run(ctx) }

// Ready returns an error with the reason if writes of tokens must wait.
func (c *Check) Ready() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.signErr != nil && c.cfg.Clock.Now().Before(c.pausedUntil.Add(signErrorAge)):
		return fmt.Errorf("no tokens are written: %w", c.signErr)
	case c.first == nil:
		return nil
	case c.first.refused:
		return fmt.Errorf("no tokens are written: the API server refuses signing key %s: %s", c.first.keyID, c.first.reason)
	case c.first.reason != "":
		return fmt.Errorf("no tokens are written until the API server has accepted one of signing key %s: %s", c.first.keyID, c.first.reason)
	case c.first.keyID != "":
		return fmt.Errorf("%w %s", errNotAccepted, c.first.keyID)
	default:
		return errNotAccepted
	}
}

// Reset starts a new check; call it when the signing key has changed. A first token of the
// former key that the API server refuses is removed from its Secret, which then gets a new
// token.
func (c *Check) Reset() {
	c.mu.Lock()
	if c.first != nil && c.first.compact != "" {
		c.former = append(c.former, c.first)
	}
	c.accepted, c.first, c.signErr, c.pausedUntil = "", nil, nil, time.Time{}
	c.mu.Unlock()
	c.queue.Add(removeFormer)
	c.wake()
}

// Write signs a token, calls write with it, and returns write's error. If it must wait, it
// returns [ErrWaiting] and calls wake later. wake must not block.
func (c *Check) Write(ctx context.Context, claims token.LegacyClaims, wake func(), write func(ctx context.Context, compact string) error) error {
	mine, ok := c.beforeSigning(claims, wake)
	if !ok {
		return ErrWaiting
	}
	compact, err := c.cfg.Signer.SignLegacy(ctx, claims)
	c.recordSigning(err)
	if err != nil {
		c.drop(mine)
		return err
	}
	if mine, ok = c.afterSigning(mine, claims, compact, wake); !ok {
		return ErrWaiting
	}
	if mine == nil {
		return write(ctx, compact)
	}
	returned := false
	defer func() {
		if !returned { // write panicked
			c.drop(mine)
		}
	}()
	err = write(ctx, compact)
	returned = true
	if kube.DefinitelyRejected(err) {
		c.drop(mine)
		return err
	}
	c.mu.Lock()
	mine.written = true
	c.mu.Unlock()
	c.queue.Add(reviewFirst)
	return err
}

// beforeSigning decides what happens with a token. It may be written if the key is accepted
// (nil, true); it becomes the first token if there is none (mine, true); otherwise it waits
// (nil, false).
func (c *Check) beforeSigning(claims token.LegacyClaims, wake func()) (mine *firstToken, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	pause := c.pausedUntil.Sub(c.cfg.Clock.Now())
	if c.first != nil || pause > 0 {
		c.waiting[secretName{claims.Namespace, claims.SecretName}] = wake
		if c.first == nil { // no review will wake it
			c.queue.AddAfter(reviewFirst, pause)
		}
		return nil, false
	}
	if c.accepted == "" {
		mine = &firstToken{claims: claims}
		c.first = mine
	}
	return mine, true
}

// recordSigning records the result of an attempt to sign. While signing fails, it limits the
// attempts in a second.
func (c *Check) recordSigning(err error) {
	c.mu.Lock()
	recovered := err == nil && c.signErr != nil && c.accepted != ""
	c.signErr = err
	if err != nil {
		c.pausedUntil = c.cfg.Clock.Now().Add(retryDelay)
	}
	c.mu.Unlock()
	if recovered { // the key is accepted, so no write needs to wait
		c.wake()
	}
}

// afterSigning repeats the decision of beforeSigning with the id of the key that has signed,
// which may have changed since.
func (c *Check) afterSigning(mine *firstToken, claims token.LegacyClaims, compact string, wake func()) (*firstToken, bool) {
	keyID := token.UnverifiedKeyID(compact)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.first == nil && c.accepted == keyID && keyID != "":
		return nil, true
	case c.first == nil: // the key changed, or there was a reset meanwhile
		mine = &firstToken{claims: claims}
		c.accepted, c.first = "", mine
	case c.first != mine:
		c.waiting[secretName{claims.Namespace, claims.SecretName}] = wake
		return nil, false
	}
	mine.keyID, mine.compact = keyID, compact
	return mine, true
}

// drop stops checking a first token, if it is still the current one, and lets others retry.
func (c *Check) drop(t *firstToken) {
	c.mu.Lock()
	if t != nil && c.first == t {
		c.first = nil
	}
	c.former = slices.DeleteFunc(c.former, func(f *firstToken) bool { return f == t })
	c.mu.Unlock()
	c.wakeSome()
}

// wake wakes all waiting writes.
func (c *Check) wake() {
	c.mu.Lock()
	waiting := c.waiting
	c.waiting = map[secretName]func(){}
	c.mu.Unlock()
	for _, wake := range waiting {
		wake()
	}
}

// wakeSome wakes some of the waiting writes, one of which becomes the first token: thousands of
// writes may wait, and each failure must not wake them all. Those that were woken may have
// nothing to write any more, so it is repeated while writes wait and there is no first token.
func (c *Check) wakeSome() {
	var some []func()
	c.mu.Lock()
	if pause := c.pausedUntil.Sub(c.cfg.Clock.Now()); pause > 0 {
		c.mu.Unlock()
		c.queue.AddAfter(reviewFirst, pause)
		return
	}
	for secret, wake := range c.waiting {
		if len(some) == wakeBatch {
			break
		}
		some = append(some, wake)
		delete(c.waiting, secret)
	}
	more := len(c.waiting) > 0
	c.mu.Unlock()
	for _, wake := range some {
		wake()
	}
	if more {
		c.queue.AddAfter(reviewFirst, retryDelay)
	}
}
