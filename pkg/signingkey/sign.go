package signingkey

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sakeeper/sakeeper/pkg/internal/workqueue"
	"github.com/sakeeper/sakeeper/pkg/token"
)

const (
	// signerPause is how long the signer is left alone after an error: thousands of tokens may be
	// wanted while it is away.
	signerPause = time.Second
	// signerErrorAge is when an error of the signer is outdated: its caller would have tried again
	// by then if it still had a token to write.
	signerErrorAge = 10 * time.Minute
)

var errSignerPaused = errWaiting(errors.New("the signer has just failed"))

// Signer makes legacy tokens.
type Signer interface {
	SignLegacy(ctx context.Context, claims token.LegacyClaims) (string, error)
}

// signerState is what the last call of the signer has shown.
type signerState struct {
	err      error
	failedAt time.Time
}

// errAt returns the error of the last call, unless it is outdated.
func (s signerState) errAt(now time.Time) error {
	if now.Sub(s.failedAt) >= signerErrorAge {
		return nil
	}
	return s.err
}

// Sign returns a token that may be written. An error that wraps [workqueue.ErrRequeueLater] means
// that no token may be written yet: try again after requeueAfter or, if that is zero, when the
// functions of [Check.OnChange] are called. Any other error is a failure to sign.
func (c *Check) Sign(ctx context.Context, claims token.LegacyClaims) (compact string, requeueAfter time.Duration, err error) {
	if err := c.allow(c.signingKeyID()); err != nil {
		return "", 0, errWaiting(err)
	}
	if left := c.signerPauseLeft(); left > 0 {
		return "", left, errSignerPaused
	}
	compact, err = c.cfg.Signer.SignLegacy(ctx, claims)
	c.recordSigning(err)
	if err != nil {
		return "", 0, err
	}
	// The key may have changed since. If the signer has a key that it does not tell of, this stays
	// an error.
	if err := c.allow(token.UnverifiedKeyID(compact)); err != nil {
		return "", 0, err
	}
	return compact, 0, nil
}

func (c *Check) signerPauseLeft() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.signer.err == nil {
		return 0
	}
	return min(c.signer.failedAt.Add(signerPause).Sub(c.cfg.Clock.Now()), signerPause)
}

func (c *Check) recordSigning(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.signer = signerState{err: err, failedAt: c.cfg.Clock.Now()}
}

// errWaiting makes err one for which the caller's key is queued later.
func errWaiting(err error) error { return fmt.Errorf("%w: %w", workqueue.ErrRequeueLater, err) }
