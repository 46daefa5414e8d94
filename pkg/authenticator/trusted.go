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

// TrustedIssuerConfig configures a [TrustedIssuer].
type TrustedIssuerConfig struct {
	// Issuer is the iss claim of its tokens. Required.
	Issuer string
	// UsernamePrefix begins the names of its users and groups. Required; it must not begin with
	// "system:".
	UsernamePrefix string
	// Keys returns the current keys of the issuer. Required, and safe for concurrent use.
	Keys func() *keys.Set
	// Refresh is called for a token whose key id Keys does not have, and returns true if Keys
	// returns other keys now. Its error becomes part of the refusal. Nil: such tokens are
	// refused at once. See [github.com/sakeeper/sakeeper/pkg/issuer.RemoteKeys].
	Refresh func(ctx context.Context) (changed bool, err error)
	// Objects reads objects of the issuer's cluster. Nil: tokens that are bound to a Pod, Secret,
	// Node or webhook configuration are refused, unless AllowUnchecked is true.
	Objects        Objects
	AllowUnchecked bool
}

// TrustedIssuer is the issuer of another cluster. Only its bound tokens are accepted: legacy
// tokens do not say which cluster issued them.
type TrustedIssuer struct {
	cfg      TrustedIssuerConfig
	verifier *token.Verifier
}

// NewTrustedIssuer returns an error if a required field is missing or invalid.
func NewTrustedIssuer(cfg TrustedIssuerConfig) (*TrustedIssuer, error) {
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
	return &TrustedIssuer{cfg: cfg, verifier: token.NewVerifier(cfg.Keys)}, nil
}

func (t *TrustedIssuer) authenticate(ctx context.Context, compact string, audiences []string, now time.Time) (Response, error) {
	claims, err := t.verify(ctx, compact)
	if err != nil {
		return Response{}, err
	}
	response := Response{User: withPrefix(t.cfg.UsernamePrefix, userOf(claims)), Audiences: intersection(audiences, claims.Audience)}
	if len(response.Audiences) == 0 {
		return Response{}, ErrAudience
	}
	if err := claims.CheckTime(now); err != nil {
		return Response{}, err
	}
	bound := claims.Pod != nil || claims.Secret != nil || claims.Node != nil ||
		claims.ValidatingWebhookConfiguration != nil || claims.MutatingWebhookConfiguration != nil
	switch {
	case t.cfg.Objects != nil:
		err = checkBound(ctx, t.cfg.Objects, claims, now)
	case bound && !t.cfg.AllowUnchecked:
		err = fmt.Errorf("%w: give issuer %s a kubeconfig, or allowUnchecked", ErrUnchecked, t.cfg.Issuer)
	}
	if err != nil {
		return Response{}, err
	}
	return response, nil
}

// verify tries once more if the issuer has a new key since the last fetch.
func (t *TrustedIssuer) verify(ctx context.Context, compact string) (token.Claims, error) {
	claims, err := t.verifier.Verify(compact, t.cfg.Issuer)
	if !errors.Is(err, token.ErrUnknownKey) || t.cfg.Refresh == nil {
		return claims, err
	}
	changed, fetchErr := t.cfg.Refresh(ctx)
	switch {
	case fetchErr != nil:
		return token.Claims{}, fmt.Errorf("%w: %w", err, fetchErr)
	case !changed:
		return token.Claims{}, err
	}
	return t.verifier.Verify(compact, t.cfg.Issuer)
}
