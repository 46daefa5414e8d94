package token

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"time"
)

// BoundClaims are the claims of a token from the TokenRequest API (KEP-1205) that its owner
// needs. The signature is not verified.
type BoundClaims struct {
	// Validity has the later of the claims iat and nbf, and exp.
	Validity Validity
	// ID is the claim jti, which audit logs show as JTI=<id>.
	ID string
	// Namespace is that of the ServiceAccount, and of Pod and Secret.
	Namespace string
	// ServiceAccount is the ServiceAccount that the token authenticates. Pod and Secret are the
	// objects that it is bound to; empty if it is not.
	ServiceAccount, Pod, Secret Ref
}

// Errors of [UnverifiedBoundClaims].
var (
	// ErrNoClaims is returned for a text that is not a JWT with claims.
	ErrNoClaims = errors.New("it is not a token with claims")
	// ErrNoValidity is returned for a token without iat and exp, or with exp before iat or nbf.
	ErrNoValidity = errors.New("the token does not say when it was issued and when it expires")
)

// grantTolerance is by how much the status of a TokenRequest may differ from the claims.
const grantTolerance = 2 * time.Second

// UnverifiedGranted returns the claims of a token in the status of a TokenRequest. Expires is
// the expirationTimestamp of that status. If it is before exp, as for tokens that are extended
// for old clients, Validity.Expires is expires. The errors are those of
// [UnverifiedBoundClaims].
func UnverifiedGranted(compact string, expires time.Time) (BoundClaims, error) {
	claims, err := UnverifiedBoundClaims(compact)
	if err == nil && expires.After(claims.Validity.Issued) && expires.Before(claims.Validity.Expires.Add(-grantTolerance)) {
		claims.Validity.Expires = expires
	}
	return claims, err
}

// UnverifiedBoundClaims returns the claims of a JWT in compact serialization. It returns
// [ErrNoClaims] or [ErrNoValidity].
func UnverifiedBoundClaims(compact string) (BoundClaims, error) {
	var wire struct {
		IssuedAt   int64  `json:"iat"`
		NotBefore  int64  `json:"nbf"`
		Expires    int64  `json:"exp"`
		ID         string `json:"jti"`
		Kubernetes struct {
			Namespace      string `json:"namespace"`
			ServiceAccount Ref    `json:"serviceaccount"`
			Pod            Ref    `json:"pod"`
			Secret         Ref    `json:"secret"`
		} `json:"kubernetes.io"`
	}
	parts := strings.Split(compact, ".")
	if len(parts) != 3 {
		return BoundClaims{}, ErrNoClaims
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || json.Unmarshal(payload, &wire) != nil {
		return BoundClaims{}, ErrNoClaims
	}
	begins := max(wire.IssuedAt, wire.NotBefore)
	if wire.IssuedAt <= 0 || wire.Expires <= begins {
		return BoundClaims{}, ErrNoValidity
	}
	return BoundClaims{
		Validity: Validity{Issued: time.Unix(begins, 0), Expires: time.Unix(wire.Expires, 0)}, ID: wire.ID,
		Namespace: wire.Kubernetes.Namespace, ServiceAccount: wire.Kubernetes.ServiceAccount, Pod: wire.Kubernetes.Pod, Secret: wire.Kubernetes.Secret,
	}, nil
}
