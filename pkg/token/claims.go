package token

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4/jwt"
	"k8s.io/apimachinery/pkg/util/validation"
)

// leeway is the difference of clocks that is allowed, as in kube-apiserver: a minute.
const leeway = jwt.DefaultLeeway

// Ref is the name and UID of an object in the claims of a token.
type Ref struct {
	Name string `json:"name,omitempty"`
	UID  string `json:"uid,omitempty"`
}

// Claims are the verified claims of a ServiceAccount token, bound or legacy.
type Claims struct {
	// Issuer and Subject are the claims iss and sub.
	Issuer, Subject string
	// Audience is the claim aud, empty in legacy tokens.
	Audience []string
	// ID is the claim jti, empty in legacy tokens.
	ID string

	// Namespace is that of the ServiceAccount, and of Pod and Secret.
	Namespace string
	// ServiceAccount is the ServiceAccount that the token authenticates.
	ServiceAccount Ref
	// Pod, Secret and Node are the objects that a bound token is bound to, or nil. A token for
	// a pod may also have the node of the pod.
	Pod, Secret, Node *Ref
	// ValidatingWebhookConfiguration and MutatingWebhookConfiguration are the webhook
	// configurations that a bound token is bound to, or nil.
	ValidatingWebhookConfiguration, MutatingWebhookConfiguration *Ref
	// AdmissionReviewAPIGroups are the API groups that the bearer may ask an admission webhook
	// about. Only a token that is bound to a webhook configuration has them.
	AdmissionReviewAPIGroups []string

	// Legacy are the claims of a legacy token; nil for a bound token.
	Legacy *LegacyClaims

	times jwt.Claims
}

// Errors of [Claims.CheckTime].
var (
	// ErrExpired is returned if exp is more than a minute ago.
	ErrExpired = errors.New("token has expired")
	// ErrNotYet is returned if nbf or iat is more than a minute ahead.
	ErrNotYet = errors.New("token is not valid yet")
)

// CheckTime returns [ErrExpired] or [ErrNotYet] if the token is not valid at a time, by exp,
// nbf and iat with a minute of leeway. Legacy tokens are always valid.
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

// UnverifiedIssuer returns the iss claim, read as kube-apiserver does before it chooses a key.
// It returns [ErrMalformed] if compact is not a JWT in compact serialization.
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

// boundPrivate is the JSON of the private claims of a bound token. The value of warnafter is
// not used; but if it is not a time, kube-apiserver refuses the token, and so does this type.
type boundPrivate struct {
	Kubernetes struct {
		Namespace                      string              `json:"namespace"`
		ServiceAccount                 Ref                 `json:"serviceaccount"`
		Pod                            *Ref                `json:"pod"`
		Secret                         *Ref                `json:"secret"`
		Node                           *Ref                `json:"node"`
		ValidatingWebhookConfiguration *Ref                `json:"validatingwebhookconfiguration"`
		MutatingWebhookConfiguration   *Ref                `json:"mutatingwebhookconfiguration"`
		Attestations                   map[string][]string `json:"attestations"`
		WarnAfter                      *jwt.NumericDate    `json:"warnafter"`
	} `json:"kubernetes.io"`
}

// boundMembers has the members of the private claim of a bound token, to find those that
// [boundPrivate] does not have.
type boundMembers struct {
	Kubernetes map[string]json.RawMessage `json:"kubernetes.io"`
}

// unknown returns the first member, in the order of the alphabet, that is not known.
func (m boundMembers) unknown() (string, bool) {
	for _, name := range slices.Sorted(maps.Keys(m.Kubernetes)) {
		switch name {
		case "namespace", "serviceaccount", "pod", "secret", "node", "validatingwebhookconfiguration", "mutatingwebhookconfiguration", "attestations", "warnafter":
		default:
			return name, true
		}
	}
	return "", false
}

// attestedAPIGroups is the attestation that a token for a webhook configuration must have.
const attestedAPIGroups = "admissionReviewAPIGroups"

// legacyPrivate is the JSON of the private claims of a legacy token.
type legacyPrivate struct {
	Namespace          string `json:"kubernetes.io/serviceaccount/namespace"`
	SecretName         string `json:"kubernetes.io/serviceaccount/secret.name"`
	ServiceAccountName string `json:"kubernetes.io/serviceaccount/service-account.name"`
	ServiceAccountUID  string `json:"kubernetes.io/serviceaccount/service-account.uid"`
}

func (p boundPrivate) verified(public jwt.Claims, members boundMembers) (Claims, error) {
	if name, found := members.unknown(); found {
		return Claims{}, fmt.Errorf("%w: kubernetes.io has the member %.64q", ErrUnknownKind, name)
	}
	k := p.Kubernetes
	claims := Claims{
		Issuer: public.Issuer, Subject: public.Subject, Audience: public.Audience, ID: public.ID, times: public,
		Namespace: k.Namespace, ServiceAccount: k.ServiceAccount, Pod: k.Pod, Secret: k.Secret, Node: k.Node,
		ValidatingWebhookConfiguration: k.ValidatingWebhookConfiguration, MutatingWebhookConfiguration: k.MutatingWebhookConfiguration,
	}
	if claims.ValidatingWebhookConfiguration != nil || claims.MutatingWebhookConfiguration != nil {
		claims.AdmissionReviewAPIGroups = k.Attestations[attestedAPIGroups]
		if len(claims.AdmissionReviewAPIGroups) == 0 {
			return Claims{}, fmt.Errorf("%w: a token for a webhook configuration lacks the attestation %s", ErrClaims, attestedAPIGroups)
		}
	}
	return claims, nil
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
