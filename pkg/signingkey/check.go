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

// Name is that of the queue and in audit logs.
const Name = "token-canary"

const (
	// lag is how long API servers may refuse a token that is good.
	lag = time.Minute
	// early and late bound the time between two reviews of a token that is refused. API
	// servers mostly lag by milliseconds, and everybody waits for the answer.
	early = 50 * time.Millisecond
	late  = 30 * time.Second
	// soon is when to look again at what has nothing to do with API servers that lag.
	soon = time.Second
	// stale is when a failure to sign says nothing any more: whoever met it would have
	// tried again since, if there still was a token to write.
	stale = 10 * time.Minute
	// few is how many are woken when a canary is dropped, or after a failure to sign.
	few = 16
)

// ErrWaiting says that the token was not written, because another one is the canary.
// Whoever gets it is woken when it is worth another try, and has its sync return it.
var ErrWaiting = fmt.Errorf("waiting for the API server to accept the first token of the signing key: %w", workqueue.ErrRequeueLater)

var errUnanswered = errors.New("waiting for the API server to accept the first token of the signing key")

// Signer makes legacy tokens.
type Signer interface {
	SignLegacy(ctx context.Context, claims token.LegacyClaims) (string, error)
}

// tokenReviewer asks the API server about tokens.
type tokenReviewer interface {
	Review(ctx context.Context, compact string) (tokenreview.Result, error)
}

// Config is what the gate needs; all but Metrics is required.
type Config struct {
	Signer Signer
	// TokenReviews asks the API server whether it accepts the canary.
	TokenReviews typedauthenticationv1.TokenReviewInterface
	// Secrets are read live to see whether a refused canary is still in its Secret,
	// and patched to take it back.
	Secrets  typedcorev1.SecretsGetter
	Recorder record.EventRecorder
	Clock    clock.PassiveClock
	// Registerer gets the metrics. Nil: they are not exported.
	Registerer prometheus.Registerer
}

// Check is what every writer of tokens goes through. It is safe for concurrent use.
type Check struct {
	cfg      Config
	reviewer tokenReviewer
	queue    *workqueue.Queue[question]

	mu sync.Mutex
	// accepted is the id of the key whose tokens may be written.
	accepted string
	// trial is the canary; nil: there is none.
	trial *trial
	// former are canaries of former keys, to be taken back if the API server does not
	// accept them.
	former []*trial
	// unsigned is why the last attempt to sign failed, and pausedUntil when the next
	// may be made.
	unsigned    error
	pausedUntil time.Time
	// waiting are the writers to wake, by the Secret that they would write.
	waiting map[secretName]func()
}

// question is the key of the gate's loop.
type question int

const (
	aboutCanary question = iota // does the API server accept it?
	aboutFormer                 // is one of a former key still in its Secret, and refused?
)

type secretName struct{ namespace, name string }

// trial is one canary. Its fields are guarded by the gate's lock, but compact and
// claims, which do not change once it is written.
type trial struct {
	claims  token.LegacyClaims
	keyID   string
	compact string
	written bool
	// refusedSince is the moment of the first refusal; zero: there was none.
	refusedSince time.Time
	refused      bool
	// trouble is why there is no yes, for people; empty: nothing was heard yet.
	trouble string
}

// New checks cfg. Nothing is reviewed before Run.
func New(cfg Config) (*Check, error) {
	if cfg.Signer == nil || cfg.TokenReviews == nil || cfg.Secrets == nil || cfg.Recorder == nil || cfg.Clock == nil {
		return nil, errors.New("signingkey: Signer, TokenReviews, Secrets, Recorder and Clock are required")
	}
	g := &Check{cfg: cfg, reviewer: tokenreview.New(cfg.TokenReviews, "canary", cfg.Registerer), waiting: map[secretName]func(){}}
	var err error
	g.queue, err = workqueue.New(workqueue.Config[question]{Name: Name, Sync: g.sync, MaxDelay: late, Registerer: cfg.Registerer})
	return g, err
}

// Run reviews canaries until ctx ends.
func (g *Check) Run(ctx context.Context) error { return g.queue.Run(ctx) }

// Ready returns nil unless writers must wait, and else the reason.
func (g *Check) Ready() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.unsigned != nil && g.cfg.Clock.Now().Before(g.pausedUntil.Add(stale)):
		return fmt.Errorf("no tokens are written: %w", g.unsigned)
	case g.trial == nil:
		return nil
	case g.trial.refused:
		return fmt.Errorf("no tokens are written: the API server refuses signing key %s: %s", g.trial.keyID, g.trial.trouble)
	case g.trial.trouble != "":
		return fmt.Errorf("no tokens are written until the API server has accepted one of signing key %s: %s", g.trial.keyID, g.trial.trouble)
	case g.trial.keyID != "":
		return fmt.Errorf("%w %s", errUnanswered, g.trial.keyID)
	default:
		return errUnanswered
	}
}

// Reset forgets what the API server said; call it when the signing key changed. A
// canary of the former key that is refused is taken out of its Secret, which then gets
// a token like any other that has none.
func (g *Check) Reset() {
	g.mu.Lock()
	if g.trial != nil && g.trial.compact != "" {
		g.former = append(g.former, g.trial)
	}
	g.accepted, g.trial, g.unsigned, g.pausedUntil = "", nil, nil, time.Time{}
	g.mu.Unlock()
	g.queue.Add(aboutFormer)
	g.wake()
}

// Write signs a token and hands it to write, whose error it returns, or returns
// [ErrWaiting] and calls wake later. wake must not block.
func (g *Check) Write(ctx context.Context, claims token.LegacyClaims, wake func(), write func(ctx context.Context, compact string) error) error {
	mine, ok := g.enter(claims, wake)
	if !ok {
		return ErrWaiting
	}
	compact, err := g.cfg.Signer.SignLegacy(ctx, claims)
	g.signed(err)
	if err != nil {
		g.drop(mine)
		return err
	}
	if mine, ok = g.admit(mine, claims, compact, wake); !ok {
		return ErrWaiting
	}
	if mine == nil {
		return write(ctx, compact)
	}
	settled := false
	defer func() {
		if !settled { // write panicked
			g.drop(mine)
		}
	}()
	err = write(ctx, compact)
	settled = true
	if kube.DefinitelyRejected(err) {
		g.drop(mine)
		return err
	}
	g.mu.Lock()
	mine.written = true
	g.mu.Unlock()
	g.queue.Add(aboutCanary)
	return err
}

// enter makes claims the canary where there is need of one (mine), lets them pass
// where the key is accepted (nil), and makes them wait while there is another.
func (g *Check) enter(claims token.LegacyClaims, wake func()) (mine *trial, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	pause := g.pausedUntil.Sub(g.cfg.Clock.Now())
	if g.trial != nil || pause > 0 {
		g.waiting[secretName{claims.Namespace, claims.SecretName}] = wake
		if g.trial == nil { // no answer will wake it
			g.queue.AddAfter(aboutCanary, pause)
		}
		return nil, false
	}
	if g.accepted == "" {
		mine = &trial{claims: claims}
		g.trial = mine
	}
	return mine, true
}

// signed notes how signing went. While it fails, a few try in a second, not
// everybody as fast as they can.
func (g *Check) signed(err error) {
	g.mu.Lock()
	recovered := err == nil && g.unsigned != nil && g.accepted != ""
	g.unsigned = err
	if err != nil {
		g.pausedUntil = g.cfg.Clock.Now().Add(soon)
	}
	g.mu.Unlock()
	if recovered { // nobody needs to wait for a canary
		g.wake()
	}
}

// admit looks at the key that has signed, which may be another one than that of a
// moment ago.
func (g *Check) admit(mine *trial, claims token.LegacyClaims, compact string, wake func()) (*trial, bool) {
	keyID := token.UnverifiedKeyID(compact)
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.trial == nil && g.accepted == keyID && keyID != "":
		return nil, true
	case g.trial == nil: // the key changed, or there was a reset meanwhile
		mine = &trial{claims: claims}
		g.accepted, g.trial = "", mine
	case g.trial != mine:
		g.waiting[secretName{claims.Namespace, claims.SecretName}] = wake
		return nil, false
	}
	mine.keyID, mine.compact = keyID, compact
	return mine, true
}

// drop gives up a canary, if it still is the one, and lets others try.
func (g *Check) drop(t *trial) {
	g.mu.Lock()
	if t != nil && g.trial == t {
		g.trial = nil
	}
	g.former = slices.DeleteFunc(g.former, func(f *trial) bool { return f == t })
	g.mu.Unlock()
	g.wakeSome()
}

// wake lets everybody try who waits.
func (g *Check) wake() {
	g.mu.Lock()
	waiting := g.waiting
	g.waiting = map[secretName]func(){}
	g.mu.Unlock()
	for _, wake := range waiting {
		wake()
	}
}

// wakeSome lets a few try, of whom one becomes the canary: ten thousand that wait
// must not all be woken by each attempt that fails. Those who were woken may have
// nothing to write any more, so it is done again as long as somebody waits and there
// is no canary.
func (g *Check) wakeSome() {
	var some []func()
	g.mu.Lock()
	if pause := g.pausedUntil.Sub(g.cfg.Clock.Now()); pause > 0 {
		g.mu.Unlock()
		g.queue.AddAfter(aboutCanary, pause)
		return
	}
	for secret, wake := range g.waiting {
		if len(some) == few {
			break
		}
		some = append(some, wake)
		delete(g.waiting, secret)
	}
	more := len(g.waiting) > 0
	g.mu.Unlock()
	for _, wake := range some {
		wake()
	}
	if more {
		g.queue.AddAfter(aboutCanary, soon)
	}
}
