package authenticator

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// ForeignConfig describes the issuer of another cluster.
type ForeignConfig struct {
	// Issuer is its iss claim. Required.
	Issuer string
	// UsernamePrefix begins the names of its users and groups. Required; not "system:...".
	UsernamePrefix string
	// Keys are its keys; required. Unknown, where it is not nil, is called with a kid that
	// none of them has, and tells whether there are others now. Its error says why there are
	// none.
	Keys    func() *keys.Set
	Unknown func(ctx context.Context) (bool, error)
	// Objects are asked for liveness. Nil: tokens that are bound to objects are refused,
	// unless AllowUnchecked.
	Objects        Objects
	AllowUnchecked bool
}

// Foreign is the issuer of another cluster. Only bound tokens of it are accepted: its
// legacy tokens do not say where they come from.
type Foreign struct {
	cfg      ForeignConfig
	verifier *token.Verifier
}

// NewForeign checks the config.
func NewForeign(cfg ForeignConfig) (*Foreign, error) {
	switch {
	case cfg.Issuer == "" || cfg.Issuer == token.LegacyIssuer:
		return nil, fmt.Errorf("issuer %q: an issuer of bound tokens is required", cfg.Issuer)
	case cfg.UsernamePrefix == "":
		return nil, fmt.Errorf("issuer %q: usernamePrefix is required, so that its users are not taken for those of this cluster", cfg.Issuer)
	case strings.HasPrefix(cfg.UsernamePrefix, "system:"):
		return nil, fmt.Errorf("issuer %q: usernamePrefix %q begins with system:, which is for the users of this cluster", cfg.Issuer, cfg.UsernamePrefix)
	case cfg.Keys == nil:
		return nil, errors.New("authenticator: Keys are required")
	}
	return &Foreign{cfg: cfg, verifier: token.NewVerifier(cfg.Keys)}, nil
}

func (f *Foreign) authenticate(ctx context.Context, compact string, audiences []string, now time.Time) (Verdict, error) {
	claims, err := f.verify(ctx, compact)
	if err != nil {
		return Verdict{}, err
	}
	verdict := Verdict{User: under(f.cfg.UsernamePrefix, userOf(claims)), Audiences: common(claims.Audience, audiences)}
	if len(verdict.Audiences) == 0 {
		return Verdict{}, ErrAudience
	}
	if err := claims.CheckTime(now); err != nil {
		return Verdict{}, err
	}
	bound := claims.Pod != nil || claims.Secret != nil || claims.Node != nil
	switch {
	case f.cfg.Objects != nil:
		err = checkBound(ctx, f.cfg.Objects, claims, now)
	case bound && !f.cfg.AllowUnchecked:
		err = fmt.Errorf("%w: give issuer %s a kubeconfig, or allowUnchecked", ErrUnchecked, f.cfg.Issuer)
	}
	if err != nil {
		return Verdict{}, err
	}
	return verdict, nil
}

// verify tries once more when the issuer has made a new key since.
func (f *Foreign) verify(ctx context.Context, compact string) (token.Claims, error) {
	claims, err := f.verifier.Verify(compact, f.cfg.Issuer)
	if !errors.Is(err, token.ErrUnknownKey) || f.cfg.Unknown == nil {
		return claims, err
	}
	changed, fetchErr := f.cfg.Unknown(ctx)
	switch {
	case fetchErr != nil:
		return token.Claims{}, fmt.Errorf("%w: %w", err, fetchErr)
	case !changed:
		return token.Claims{}, err
	}
	return f.verifier.Verify(compact, f.cfg.Issuer)
}
