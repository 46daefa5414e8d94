package token

import "errors"

// LegacyIssuer is the iss claim of all legacy tokens, whatever issuer the API
// server is configured with.
const LegacyIssuer = "kubernetes/serviceaccount"

// What the API server and the cleaner note on the Secret of a legacy token (KEP-2799);
// the values are dates (2006-01-02, UTC).
const (
	// LastUsedLabel is the date of the last use, also of one that was refused because
	// of InvalidSinceLabel.
	LastUsedLabel = "kubernetes.io/legacy-token-last-used"
	// InvalidSinceLabel, where it is not empty, makes the API server refuse the token.
	InvalidSinceLabel = "kubernetes.io/legacy-token-invalid-since"
)

// usernamePrefix begins the sub claim; "<namespace>:<name>" follows.
const usernamePrefix = "system:serviceaccount:"

// LegacyClaims say which ServiceAccount a legacy token stands for and which
// Secret holds it.
type LegacyClaims struct {
	Namespace          string
	SecretName         string
	ServiceAccountName string
	ServiceAccountUID  string
}

// Subject is the sub claim, which is also the user name at the API server.
func (c LegacyClaims) Subject() string {
	return usernamePrefix + c.Namespace + ":" + c.ServiceAccountName
}

// complete tells what the API server would refuse a token for.
func (c LegacyClaims) validate() error {
	switch "" {
	case c.Namespace:
		return errors.New("namespace claim is missing")
	case c.SecretName:
		return errors.New("secret name claim is missing")
	case c.ServiceAccountName:
		return errors.New("service account name claim is missing")
	case c.ServiceAccountUID:
		return errors.New("service account uid claim is missing")
	}
	return nil
}

// legacyPayload is the payload on the wire. go-jose writes its members sorted by
// name, as kube-controller-manager does: with an RSA key, whose signatures are
// deterministic, both make the same bytes.
type legacyPayload struct {
	Issuer             string `json:"iss"`
	Namespace          string `json:"kubernetes.io/serviceaccount/namespace"`
	SecretName         string `json:"kubernetes.io/serviceaccount/secret.name"`
	ServiceAccountName string `json:"kubernetes.io/serviceaccount/service-account.name"`
	ServiceAccountUID  string `json:"kubernetes.io/serviceaccount/service-account.uid"`
	Subject            string `json:"sub"`
}

func (c LegacyClaims) payload() legacyPayload {
	return legacyPayload{
		Issuer:             LegacyIssuer,
		Namespace:          c.Namespace,
		SecretName:         c.SecretName,
		ServiceAccountName: c.ServiceAccountName,
		ServiceAccountUID:  c.ServiceAccountUID,
		Subject:            c.Subject(),
	}
}

func (p legacyPayload) claims() LegacyClaims {
	return LegacyClaims{
		Namespace:          p.Namespace,
		SecretName:         p.SecretName,
		ServiceAccountName: p.ServiceAccountName,
		ServiceAccountUID:  p.ServiceAccountUID,
	}
}
