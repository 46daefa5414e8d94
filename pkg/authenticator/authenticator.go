package authenticator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// Why a token is refused, besides the sentinels of package token.
var (
	// ErrAudience is for a token that is not meant for any of the audiences.
	ErrAudience = errors.New("token is for other audiences")
	// ErrGone is for a token of which something that it is bound to is not there any more.
	ErrGone = errors.New("token is bound to something that is gone")
	// ErrStored is for a legacy token that is not the one of its Secret.
	ErrStored = errors.New("token is not the one in its secret")
	// ErrInvalidated is for a legacy token that was marked for lack of use.
	ErrInvalidated = errors.New("token was marked invalid for lack of use")
	// ErrUnchecked is for a token of another cluster that cannot be asked.
	ErrUnchecked = errors.New("token is bound to objects of a cluster that cannot be asked")
)

// ErrUnavailable says that there is no verdict, because something could not be asked.
var ErrUnavailable = errors.New("no verdict")

// Config is what an [Authenticator] needs.
type Config struct {
	// Keys are the own issuer's, as of the moment. Required.
	Keys func() *keys.Set
	// Issuers are the iss claims of own bound tokens; the first is the one of new tokens.
	// At least one is required.
	Issuers []string
	// Audiences are meant where a review names none, and by legacy tokens. Empty: Issuers.
	Audiences []string
	// Objects are asked whether what tokens are bound to is alive. Required.
	Objects Objects
	// Used hears of each legacy token that was presented and was, or would have been but for
	// a mark, accepted. It must not block. Nil: nobody does.
	Used func(Secret)
	// Foreign are the issuers of other clusters.
	Foreign []*Foreign
	// Clock is required.
	Clock clock.PassiveClock
}

// Verdict is whose a token is.
type Verdict struct {
	User authenticationv1.UserInfo
	// Audiences are those that were asked for and that the token is for.
	Audiences []string
}

// Authenticator judges tokens. It is safe for concurrent use.
type Authenticator struct {
	cfg      Config
	verifier *token.Verifier
	foreign  map[string]*Foreign
}

// New checks the config.
func New(cfg Config) (*Authenticator, error) {
	switch {
	case cfg.Keys == nil || cfg.Objects == nil || cfg.Clock == nil:
		return nil, errors.New("authenticator: Keys, Objects and Clock are required")
	case len(cfg.Issuers) == 0:
		return nil, errors.New("authenticator: Issuers are required")
	case slices.Contains(cfg.Issuers, token.LegacyIssuer) || slices.Contains(cfg.Issuers, ""):
		return nil, fmt.Errorf("authenticator: neither %q nor nothing can be an issuer of bound tokens", token.LegacyIssuer)
	}
	if len(cfg.Audiences) == 0 {
		cfg.Audiences = cfg.Issuers
	}
	a := &Authenticator{cfg: cfg, verifier: token.NewVerifier(cfg.Keys), foreign: map[string]*Foreign{}}
	for _, f := range cfg.Foreign {
		if a.foreign[f.cfg.Issuer] != nil || slices.Contains(cfg.Issuers, f.cfg.Issuer) {
			return nil, fmt.Errorf("authenticator: issuer %q is there twice", f.cfg.Issuer)
		}
		a.foreign[f.cfg.Issuer] = f
	}
	return a, nil
}

// Authenticate says whose a token is. Audiences are those of the asker; none: the
// configured ones. An error is a refusal, but for those that wrap [ErrUnavailable]. None
// holds a part of the token.
func (a *Authenticator) Authenticate(ctx context.Context, compact string, audiences []string) (Verdict, error) {
	issuer, err := token.UnverifiedIssuer(compact)
	if err != nil {
		return Verdict{}, err
	}
	if len(audiences) == 0 {
		audiences = a.cfg.Audiences
	}
	switch foreign := a.foreign[issuer]; {
	case foreign != nil:
		return foreign.authenticate(ctx, compact, audiences, a.cfg.Clock.Now())
	case issuer != token.LegacyIssuer && !slices.Contains(a.cfg.Issuers, issuer):
		return Verdict{}, token.ErrIssuer
	}
	claims, err := a.verifier.Verify(compact, issuer)
	if err != nil {
		return Verdict{}, err
	}
	meant := claims.Audience
	if len(meant) == 0 {
		meant = a.cfg.Audiences
	}
	verdict := Verdict{User: userOf(claims), Audiences: common(meant, audiences)}
	if len(verdict.Audiences) == 0 {
		return Verdict{}, ErrAudience
	}
	now := a.cfg.Clock.Now()
	if err := claims.CheckTime(now); err != nil {
		return Verdict{}, err
	}
	if claims.Legacy != nil {
		err = a.checkLegacy(ctx, claims, compact)
	} else {
		err = checkBound(ctx, a.cfg.Objects, claims, now)
	}
	if err != nil {
		return Verdict{}, err
	}
	return verdict, nil
}

// common are those asked for that are meant, in the order in which they are asked for.
func common(meant, asked []string) []string {
	var both []string
	for _, audience := range asked {
		if slices.Contains(meant, audience) {
			both = append(both, audience)
		}
	}
	return both
}

// deletedFor is how long after its deletion time an object counts as alive, for bound
// tokens, so that what is shutting down can still do so.
const deletedFor = time.Minute
