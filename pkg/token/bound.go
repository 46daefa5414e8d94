package token

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"time"
)

// BoundClaims are the claims of a token from the TokenRequest API (KEP-1205) that matter to
// whoever keeps it: nobody has verified its signature.
type BoundClaims struct {
	Validity Validity
	// ID is the claim jti, which audit logs show as JTI=<id>.
	ID        string
	Namespace string
	// Of the objects that the token is bound to, those that it is not bound to are
	// empty.
	ServiceAccount, Pod, Secret Ref
}

// Why claims cannot be read.
var (
	ErrNoClaims   = errors.New("it is no token with claims")
	ErrNoValidity = errors.New("the token does not say when it was issued and when it expires")
)

// rounding is by how much the answer may name another moment than the token.
const grantTolerance = 2 * time.Second

// UnverifiedGranted reads the claims of a token that the API server has just granted, in the
// answer to a TokenRequest. Where the answer says that the token expires earlier than the
// token itself does, as for tokens that are extended for old clients, the answer counts.
func UnverifiedGranted(compact string, expires time.Time) (BoundClaims, error) {
	claims, err := UnverifiedBoundClaims(compact)
	if err == nil && expires.After(claims.Validity.Issued) && expires.Before(claims.Validity.Expires.Add(-grantTolerance)) {
		claims.Validity.Expires = expires
	}
	return claims, err
}

// UnverifiedBoundClaims reads the claims of a JWT in compact form.
func UnverifiedBoundClaims(compact string) (BoundClaims, error) {
	var wire struct {
		IssuedAt   int64  `json:"iat"`
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
	if wire.IssuedAt <= 0 || wire.Expires <= wire.IssuedAt {
		return BoundClaims{}, ErrNoValidity
	}
	return BoundClaims{
		Validity: Validity{Issued: time.Unix(wire.IssuedAt, 0), Expires: time.Unix(wire.Expires, 0)}, ID: wire.ID,
		Namespace: wire.Kubernetes.Namespace, ServiceAccount: wire.Kubernetes.ServiceAccount, Pod: wire.Kubernetes.Pod, Secret: wire.Kubernetes.Secret,
	}, nil
}
