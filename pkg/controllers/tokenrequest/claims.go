package tokenrequest

import (
	"errors"
	"fmt"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sakeeper/sakeeper/pkg/token"
)

// errUnbound is the error for a token that would outlive its Secret.
var errUnbound = errors.New("the API server issued a token that is not bound to this Secret and ServiceAccount")

// readClaims reads the claims of a token that the API server has just issued, so it checks
// no signature. It must not be used for a token from another source.
func readClaims(response *authenticationv1.TokenRequest, secret, account types.UID) (token.BoundClaims, error) {
	c, err := token.UnverifiedGranted(response.Status.Token, response.Status.ExpirationTimestamp.Time)
	switch {
	case err != nil:
		return c, fmt.Errorf("read the response of the API server: %w", err)
	case c.Secret.UID != string(secret) || c.ServiceAccount.UID != string(account):
		return c, errUnbound
	}
	return c, nil
}

// results are the annotations that describe the token of a Secret.
type results struct{ issuedAt, expiresAt, credentialID string }

func resultsOf(c token.BoundClaims) results {
	r := results{
		issuedAt:  c.Validity.Issued.UTC().Format(time.RFC3339),
		expiresAt: c.Validity.Expires.UTC().Format(time.RFC3339),
	}
	if c.ID != "" {
		r.credentialID = "JTI=" + c.ID // as in audit logs
	}
	return r
}

// term returns when the token was issued and when it expires, or false if results do not say.
func (r results) term() (token.Validity, bool) {
	issued, err1 := time.Parse(time.RFC3339, r.issuedAt)
	expires, err2 := time.Parse(time.RFC3339, r.expiresAt)
	return token.Validity{Issued: issued, Expires: expires}, err1 == nil && err2 == nil && expires.After(issued)
}
