package signingkey

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/internal/metrics"
	"github.com/sakeeper/sakeeper/pkg/keys"
)

// Name identifies the requests of this package in audit logs.
const Name = "signing-key-check"

const (
	// interval is the time between two reads while tokens may be written.
	interval = 5 * time.Minute
	// minDelay and maxDelay bound the time between two reads while they may not.
	minDelay = 50 * time.Millisecond
	maxDelay = 10 * time.Second
	// forbiddenFor is how long reads must be forbidden before that is believed, and tokens are written
	// unchecked: an API server that has just started does not know all roles. Until startFor has
	// passed, it is asked again as often as while tokens may not be written.
	forbiddenFor = time.Second
	startFor     = time.Minute
	// minRefreshInterval is the time between two reads that unknown keys ask for.
	minRefreshInterval = 10 * time.Second
)

// Config configures a [Check]. All fields but Unverified and Registerer are required.
type Config struct {
	// Client reads the keys that the API server publishes.
	Client rest.Interface
	// Keys returns the current keys of the controllers.
	Keys func() *keys.Set
	// Signer signs with them.
	Signer Signer
	// Unverified lets tokens be written with a key that the API server does not publish.
	Unverified bool
	Recorder   record.EventRecorder
	// Process is the object of events.
	Process *corev1.ObjectReference
	Clock   clock.PassiveClock
	// Registerer gets the metrics. Nil: they are not exported.
	Registerer prometheus.Registerer
}

// Check says whether tokens of a key may be written. It is safe for concurrent use.
type Check struct {
	cfg    Config
	result *prometheus.GaugeVec
	// readNow ends the wait for the next read.
	readNow chan struct{}

	mu     sync.Mutex
	last   answer
	readAt time.Time
	// forbiddenSince is when reads began to be forbidden, or zero.
	forbiddenSince time.Time
	// published is what the last answer said, nil before the first. known has it together with own.
	published, own, known *keys.Set
	// waiting: a token was not written, and its controller waits for onChange.
	waiting  bool
	onChange []func()
	signer   signerState
	// reported is the last problem that was reported; reportedNotServed: there was an event about
	// keys that are not served.
	reported          string
	reportedNotServed bool
}

// answer is the API server's answer to the last read. The zero value is none.
type answer struct {
	published *keys.Set // nil if there is an error
	err       error
}

// New returns a Check. It reads nothing before Run.
func New(cfg Config) (*Check, error) {
	switch {
	case cfg.Client == nil, cfg.Keys == nil, cfg.Signer == nil:
		return nil, errors.New("signingkey: Client, Keys and Signer are required")
	case cfg.Recorder == nil, cfg.Process == nil, cfg.Clock == nil:
		return nil, errors.New("signingkey: Recorder, Process and Clock are required")
	}
	return &Check{cfg: cfg, readNow: make(chan struct{}, 1), result: metrics.Shared(cfg.Registerer, prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "sakeeper_signing_key_check",
		Help: "1 for the last result of the search for the signing key among the keys that the API server publishes: published, not_published, not_served (404 or 403: nothing could be checked) or no_answer.",
	}, []string{"result"}))}, nil
}

// OnChange makes f run when tokens that had to wait may be written, and when the keys of
// [Check.Known] change because the API server publishes others. f must not block.
func (c *Check) OnChange(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.onChange = append(c.onChange, f)
}

// Run reads the published keys until ctx ends, and returns nil then.
func (c *Check) Run(ctx context.Context) error {
	ctx = klog.NewContext(ctx, klog.FromContext(ctx).WithName(Name))
	newBackoff := func() wait.Backoff {
		return wait.Backoff{Duration: minDelay, Factor: 2, Cap: maxDelay, Steps: 1 << 30}
	}
	backoff := newBackoff()
	for {
		delay := interval
		if c.read(ctx) {
			backoff = newBackoff()
		} else {
			delay = backoff.Step()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-c.readNow:
			backoff = newBackoff()
		case <-time.After(delay):
		}
	}
}

// Reset forgets the last answer and asks again. Call it when the signing key has changed.
func (c *Check) Reset() {
	c.mu.Lock()
	c.last, c.signer = answer{}, signerState{}
	c.mu.Unlock()
	c.wakeUp()
}

// Refresh reads the published keys again, unless that was just done. Call it for a token of a key
// that is not known: its key may be new.
func (c *Check) Refresh() {
	c.mu.Lock()
	recent := c.cfg.Clock.Since(c.readAt) < minRefreshInterval
	c.mu.Unlock()
	if !recent {
		c.wakeUp()
	}
}

func (c *Check) wakeUp() {
	select {
	case c.readNow <- struct{}{}:
	default: // it is about to read them
	}
}

// Ready returns an error with the reason if no tokens are written.
func (c *Check) Ready() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.refusal(c.signingKeyID())
	if err == nil {
		err = c.signer.errAt(c.cfg.Clock.Now())
	}
	if err != nil {
		return fmt.Errorf("no tokens are written: %w", err)
	}
	return nil
}

// Known returns the keys of the controllers together with those that the API server publishes.
// complete is false as long as it has not said which these are.
func (c *Check) Known() (set *keys.Set, complete bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if own := c.cfg.Keys(); c.known == nil || own != c.own {
		c.own, c.known = own, own
		if c.published != nil {
			c.known = keys.NewSet(own.Signing(), append(own.Verification(), c.published.Verification()...)...)
		}
	}
	return c.known, c.published != nil
}

// allow returns an error unless tokens of the key may be written.
func (c *Check) allow(keyID string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.refusal(keyID)
	c.waiting = c.waiting || err != nil
	return err
}

// refusal returns why no tokens of the key may be written. The caller holds c.mu.
func (c *Check) refusal(keyID string) error {
	if c.cfg.Unverified {
		return nil
	}
	return refusal(keyID, c.last)
}

// refusal returns why no tokens of the key may be written, nil if they may.
func refusal(keyID string, last answer) error {
	switch {
	case errors.Is(last.err, errNotServed):
		return nil
	case last.err != nil:
		return fmt.Errorf("the API server does not say whether it knows signing key %s: %w", keyID, last.err)
	case last.published == nil:
		return fmt.Errorf("the API server was not yet asked whether it knows signing key %s", keyID)
	}
	if _, ok := last.published.Lookup(keyID); !ok {
		return fmt.Errorf("signing key %s is not among the %d keys that the API server publishes", keyID, len(last.published.Verification()))
	}
	return nil
}

func (c *Check) signingKeyID() string { return c.cfg.Keys().Signing().PublicKey().ID() }

// forbidden returns err if reads have been forbidden long enough for it to be believed, and whether
// the API server may still be starting. The caller holds c.mu.
func (c *Check) forbidden(err error, now time.Time) (believed error, starting bool) {
	if c.forbiddenSince.IsZero() {
		c.forbiddenSince = now
	}
	since := now.Sub(c.forbiddenSince)
	if since < forbiddenFor {
		err = fmt.Errorf("get %s is forbidden, which may be because the API server has just started", path)
	}
	return err, since < startFor
}

// read reads the published keys once. It returns true if it need not be repeated soon.
func (c *Check) read(ctx context.Context) bool {
	published, err := fetch(ctx, c.cfg.Client)
	if ctx.Err() != nil {
		return false
	}
	keyID, now := c.signingKeyID(), c.cfg.Clock.Now()
	c.mu.Lock()
	starting := false
	if apierrors.IsForbidden(err) {
		err, starting = c.forbidden(err, now)
	} else {
		c.forbiddenSince = time.Time{}
	}
	c.last, c.readAt = answer{published, err}, now
	if errors.Is(err, errNotServed) {
		published = keys.NewVerificationSet()
	}
	changed := published != nil && (c.published == nil || published.ID() != c.published.ID())
	if changed {
		c.published, c.known = published, nil
	}
	refused := c.refusal(keyID)
	if refused == nil && c.waiting {
		c.waiting, changed = false, true
	}
	last, onChange := c.last, slices.Clone(c.onChange)
	c.mu.Unlock()
	c.report(ctx, keyID, last)
	if changed {
		for _, f := range onChange {
			f()
		}
	}
	return refused == nil && published != nil && !starting
}
