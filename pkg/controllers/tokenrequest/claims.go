package tokenrequest

import (
	"errors"
	"fmt"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sakeeper/sakeeper/pkg/token"
)

// errUnbound is for a token that would outlive its Secret.
var errUnbound = errors.New("the API server answered with a token that is not bound to this Secret and ServiceAccount")

// readClaims reads the claims of a token that comes right from the API server; nobody
// else is trusted with that, so no signature is checked.
func readClaims(answer *authenticationv1.TokenRequest, secret, account types.UID) (token.BoundClaims, error) {
	c, err := token.UnverifiedGranted(answer.Status.Token, answer.Status.ExpirationTimestamp.Time)
	switch {
	case err != nil:
		return c, fmt.Errorf("read the answer of the API server: %w", err)
	case c.Secret.UID != string(secret) || c.ServiceAccount.UID != string(account):
		return c, errUnbound
	}
	return c, nil
}

// results are what is noted of a token on its Secret, in annotations.
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

// term is the time for which the token is good; there may be none.
func (r results) term() (token.Validity, bool) {
	issued, err1 := time.Parse(time.RFC3339, r.issuedAt)
	expires, err2 := time.Parse(time.RFC3339, r.expiresAt)
	return token.Validity{Issued: issued, Expires: expires}, err1 == nil && err2 == nil && expires.After(issued)
}
