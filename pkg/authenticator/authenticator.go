package authenticator

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// Why a token is refused, besides the errors of package token.
var (
	// ErrAudience: the token is for none of the audiences.
	ErrAudience = errors.New("token is for other audiences")
	// ErrGone: an object that the token is bound to does not exist, is being deleted or has
	// another UID.
	ErrGone = errors.New("token is bound to an object that is gone")
	// ErrStored: the Secret of a legacy token holds another token.
	ErrStored = errors.New("token is not the one in its secret")
	// ErrInvalidated: a legacy token was marked invalid because it was not used.
	ErrInvalidated = errors.New("token was marked invalid for lack of use")
	// ErrUnchecked: the token of a trusted issuer is bound to objects, and there is no
	// connection to its cluster.
	ErrUnchecked = errors.New("token is bound to objects of a cluster that cannot be read")
)

// ErrUnavailable means that a token is neither accepted nor refused, because an object could not be
// read.
var ErrUnavailable = errors.New("token could not be checked")

// Config configures an [Authenticator].
type Config struct {
	// Keys returns the current keys of this cluster's issuer. Required, and safe for concurrent
	// use.
	Keys func() *keys.Set
	// Issuers are the accepted iss claims of this cluster's bound tokens. At least one is
	// required.
	Issuers []string
	// Audiences are the audiences of the API server: those of a review that names none, and
	// those of legacy tokens. Empty: Issuers.
	Audiences []string
	// Objects reads the objects that tokens are bound to. Required.
	Objects Objects
	// Used is called with the Secret of each legacy token that was presented and is accepted,
	// or would be if it were not marked invalid. It must not block, and is called concurrently.
	// Nil: it is not called.
	Used func(Secret)
	// TrustedIssuers are the issuers of other clusters whose tokens are accepted.
	TrustedIssuers []*TrustedIssuer
	// Clock is required.
	Clock clock.PassiveClock
	// Registerer gets the metrics of the handler. Nil: they are not registered.
	Registerer prometheus.Registerer
}

// Response describes an accepted token.
type Response struct {
	// User is the user of the token, as in the status of a TokenReview.
	User authenticationv1.UserInfo
	// Audiences are the requested audiences that the token is for.
	Audiences []string
}

// Authenticator verifies tokens. It is safe for concurrent use.
type Authenticator struct {
	cfg      Config
	verifier *token.Verifier
	trusted  map[string]*TrustedIssuer
	metrics  *metrics
}

// New returns an error if a required field is missing or an issuer is configured twice.
func New(cfg Config) (*Authenticator, error) {
	switch {
	case cfg.Keys == nil || cfg.Objects == nil || cfg.Clock == nil:
		return nil, errors.New("authenticator: Keys, Objects and Clock are required")
	case len(cfg.Issuers) == 0:
		return nil, errors.New("authenticator: Issuers are required")
	case slices.Contains(cfg.Issuers, token.LegacyIssuer) || slices.Contains(cfg.Issuers, ""):
		return nil, fmt.Errorf("authenticator: %q and the empty string cannot be issuers of bound tokens", token.LegacyIssuer)
	}
	if len(cfg.Audiences) == 0 {
		cfg.Audiences = cfg.Issuers
	}
	a := &Authenticator{cfg: cfg, verifier: token.NewVerifier(cfg.Keys), trusted: map[string]*TrustedIssuer{}, metrics: newMetrics(cfg.Registerer)}
	for _, t := range cfg.TrustedIssuers {
		if a.trusted[t.cfg.Issuer] != nil || slices.Contains(cfg.Issuers, t.cfg.Issuer) {
			return nil, fmt.Errorf("authenticator: issuer %q is configured twice", t.cfg.Issuer)
		}
		a.trusted[t.cfg.Issuer] = t
	}
	return a, nil
}

// Authenticate verifies a token in compact serialization. If audiences is empty, those of the
// API server are meant. An error that wraps [ErrUnavailable] means that the token could not be
// checked; any other error is a refusal. No error contains a part of the token.
func (a *Authenticator) Authenticate(ctx context.Context, compact string, audiences []string) (Response, error) {
	issuer, err := token.UnverifiedIssuer(compact)
	if err != nil {
		return Response{}, err
	}
	if len(audiences) == 0 {
		audiences = a.cfg.Audiences
	}
	switch trusted := a.trusted[issuer]; {
	case trusted != nil:
		return trusted.authenticate(ctx, compact, audiences, a.cfg.Clock.Now())
	case issuer != token.LegacyIssuer && !slices.Contains(a.cfg.Issuers, issuer):
		return Response{}, token.ErrIssuer
	}
	claims, err := a.verifier.Verify(compact, issuer)
	if err != nil {
		return Response{}, err
	}
	tokenAudiences := claims.Audience
	if len(tokenAudiences) == 0 {
		tokenAudiences = a.cfg.Audiences
	}
	response := Response{User: userOf(claims), Audiences: intersection(audiences, tokenAudiences)}
	if len(response.Audiences) == 0 {
		return Response{}, ErrAudience
	}
	now := a.cfg.Clock.Now()
	if err := claims.CheckTime(now); err != nil {
		return Response{}, err
	}
	if claims.Legacy != nil {
		err = a.checkLegacy(ctx, claims, compact)
	} else {
		err = checkBound(ctx, a.cfg.Objects, claims, now)
	}
	if err != nil {
		return Response{}, err
	}
	return response, nil
}

// intersection returns the requested audiences that the token has, in the order of the request.
func intersection(requested, tokenAudiences []string) []string {
	var both []string
	for _, audience := range requested {
		if slices.Contains(tokenAudiences, audience) {
			both = append(both, audience)
		}
	}
	return both
}
