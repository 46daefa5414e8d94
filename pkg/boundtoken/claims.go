package boundtoken

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Claims are what a token says, unverified.
type Claims struct {
	Term Term
	// ID is the claim jti, which audit logs show as JTI=<id>.
	ID        string
	Namespace string
	// Of the objects that the token is bound to, those that it is not bound to are
	// empty.
	ServiceAccount, Pod, Secret Object
}

// Object is an object of the token's namespace.
type Object struct {
	Name string    `json:"name"`
	UID  types.UID `json:"uid"`
}

// Why claims cannot be read.
var (
	ErrNoClaims = errors.New("it is no token with claims")
	ErrNoTerm   = errors.New("the token does not say when it was issued and when it expires")
)

// rounding is by how much the answer may name another moment than the token.
const rounding = 2 * time.Second

// Granted reads what the API server granted: where it says that the token expires
// earlier than the token itself does, as for tokens that it extends for old clients, that
// counts.
func Granted(answer *authenticationv1.TokenRequest) (Claims, error) {
	claims, err := ReadClaims(answer.Status.Token)
	if expires := answer.Status.ExpirationTimestamp.Time; err == nil && expires.After(claims.Term.Issued) && expires.Before(claims.Term.Expires.Add(-rounding)) {
		claims.Term.Expires = expires
	}
	return claims, err
}

// ReadClaims reads the claims of a JWT in compact form.
func ReadClaims(compact string) (Claims, error) {
	var wire struct {
		IssuedAt   int64  `json:"iat"`
		Expires    int64  `json:"exp"`
		ID         string `json:"jti"`
		Kubernetes struct {
			Namespace      string `json:"namespace"`
			ServiceAccount Object `json:"serviceaccount"`
			Pod            Object `json:"pod"`
			Secret         Object `json:"secret"`
		} `json:"kubernetes.io"`
	}
	parts := strings.Split(compact, ".")
	if len(parts) != 3 {
		return Claims{}, ErrNoClaims
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || json.Unmarshal(payload, &wire) != nil {
		return Claims{}, ErrNoClaims
	}
	if wire.IssuedAt <= 0 || wire.Expires <= wire.IssuedAt {
		return Claims{}, ErrNoTerm
	}
	return Claims{
		Term: Term{Issued: time.Unix(wire.IssuedAt, 0), Expires: time.Unix(wire.Expires, 0)}, ID: wire.ID,
		Namespace: wire.Kubernetes.Namespace, ServiceAccount: wire.Kubernetes.ServiceAccount, Pod: wire.Kubernetes.Pod, Secret: wire.Kubernetes.Secret,
	}, nil
}
