package token

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4/jwt"
	"k8s.io/apimachinery/pkg/util/validation"
)

// leeway is what clocks may differ by, as kube-apiserver has it.
const leeway = jwt.DefaultLeeway

// Ref names an object that a token is bound to.
type Ref struct {
	Name string `json:"name,omitempty"`
	UID  string `json:"uid,omitempty"`
}

// Claims are those of a service-account token whose signature is good, of either kind.
type Claims struct {
	Issuer, Subject string
	// Audience is empty in legacy tokens.
	Audience []string
	// ID is the claim jti.
	ID string

	Namespace string
	// ServiceAccount is whom the token stands for.
	ServiceAccount Ref
	// Pod, Secret and Node are what a bound token is bound to; nil where it is not. A token
	// for a pod may name the node that it runs on.
	Pod, Secret, Node *Ref

	// Legacy is nil unless it is a legacy token.
	Legacy *LegacyClaims

	times jwt.Claims
}

// Why the claims of a token whose signature is good are refused.
var (
	// ErrExpired is for a token whose exp has passed by more than a minute.
	ErrExpired = errors.New("token has expired")
	// ErrNotYet is for a token whose nbf or iat is more than a minute ahead.
	ErrNotYet = errors.New("token is not valid yet")
)

// CheckTime compares exp, nbf and iat with a moment, with a minute of leeway. Legacy
// tokens have no time.
func (c Claims) CheckTime(now time.Time) error {
	if c.Legacy != nil {
		return nil
	}
	switch err := c.times.ValidateWithLeeway(jwt.Expected{Time: now}, leeway); {
	case err == nil:
		return nil
	case errors.Is(err, jwt.ErrExpired):
		return ErrExpired
	default:
		return ErrNotYet
	}
}

// UnverifiedIssuer is the iss claim, read as kube-apiserver does before it looks for a
// key. The error is [ErrMalformed]: it is no JWT in compact serialization.
func UnverifiedIssuer(compact string) (string, error) {
	if !wellFormed(compact) {
		return "", ErrMalformed
	}
	_, rest, _ := strings.Cut(compact, ".")
	payload, signature, ok := strings.Cut(rest, ".")
	if !ok || strings.Contains(signature, ".") {
		return "", ErrMalformed
	}
	claims, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil {
		return "", ErrMalformed
	}
	var unverified struct {
		Issuer string `json:"iss"`
	}
	if json.Unmarshal(claims, &unverified) != nil {
		return "", ErrMalformed
	}
	return unverified.Issuer, nil
}

// boundPrivate are the private claims of a bound token on the wire. Nobody looks at
// warnafter; but where it is no time, kube-apiserver cannot read the claims.
type boundPrivate struct {
	Kubernetes struct {
		Namespace      string           `json:"namespace"`
		ServiceAccount Ref              `json:"serviceaccount"`
		Pod            *Ref             `json:"pod"`
		Secret         *Ref             `json:"secret"`
		Node           *Ref             `json:"node"`
		WarnAfter      *jwt.NumericDate `json:"warnafter"`
	} `json:"kubernetes.io"`
}

// legacyPrivate are the private claims of a legacy token on the wire.
type legacyPrivate struct {
	Namespace          string `json:"kubernetes.io/serviceaccount/namespace"`
	SecretName         string `json:"kubernetes.io/serviceaccount/secret.name"`
	ServiceAccountName string `json:"kubernetes.io/serviceaccount/service-account.name"`
	ServiceAccountUID  string `json:"kubernetes.io/serviceaccount/service-account.uid"`
}

// Verify checks shape and algorithm, key, signature, issuer and, of a legacy token, that
// its claims are whole. It checks neither time ([Claims.CheckTime]) nor audience, and says
// nothing of whether the token is alive. Errors are, or wrap, the sentinels of this package.
func (v *Verifier) Verify(compact, issuer string) (Claims, error) {
	parsed, err := parse(compact)
	if err != nil {
		return Claims{}, err
	}
	candidates, err := candidates(v.keys(), parsed.Headers[0])
	if err != nil {
		return Claims{}, err
	}
	var public jwt.Claims
	var bound boundPrivate
	var legacy legacyPrivate
	private := any(&bound)
	if issuer == LegacyIssuer {
		private = &legacy
	}
	for _, key := range candidates {
		if parsed.Claims(key.Key(), &public, private) != nil { // reads nothing before the signature is good
			continue
		}
		if public.Issuer != issuer {
			return Claims{}, ErrIssuer
		}
		if issuer == LegacyIssuer {
			return legacy.verified(public)
		}
		return bound.verified(public), nil
	}
	if parsed.UnsafeClaimsWithoutVerification(&public, private) != nil {
		return Claims{}, ErrMalformed // which Claims tells in the same way
	}
	return Claims{}, ErrSignature
}

func (p boundPrivate) verified(public jwt.Claims) Claims {
	k := p.Kubernetes
	return Claims{
		Issuer: public.Issuer, Subject: public.Subject, Audience: public.Audience, ID: public.ID, times: public,
		Namespace: k.Namespace, ServiceAccount: k.ServiceAccount, Pod: k.Pod, Secret: k.Secret, Node: k.Node,
	}
}

func (p legacyPrivate) verified(public jwt.Claims) (Claims, error) {
	legacy := LegacyClaims(p)
	if err := legacy.validate(); err != nil {
		return Claims{}, fmt.Errorf("%w: %w", ErrClaims, err)
	}
	if public.Subject != legacy.Subject() || len(validation.IsDNS1123Label(p.Namespace)) > 0 || len(validation.IsDNS1123Subdomain(p.ServiceAccountName)) > 0 {
		return Claims{}, fmt.Errorf("%w: sub claim does not name the service account", ErrClaims)
	}
	return Claims{
		Issuer: public.Issuer, Subject: public.Subject, Audience: public.Audience,
		Namespace: p.Namespace, ServiceAccount: Ref{Name: p.ServiceAccountName, UID: p.ServiceAccountUID}, Legacy: &legacy,
	}, nil
}
