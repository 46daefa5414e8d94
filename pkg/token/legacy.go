package token

import "errors"

// LegacyIssuer is the iss claim of all legacy tokens. It does not depend on
// --service-account-issuer.
const LegacyIssuer = "kubernetes/serviceaccount"

// Labels on the Secret of a legacy token (KEP-2799). The values are dates (2006-01-02, UTC).
const (
	// LastUsedLabel is the date of the last use, also of one that was refused because of
	// InvalidSinceLabel. The API server sets it.
	LastUsedLabel = "kubernetes.io/legacy-token-last-used"
	// InvalidSinceLabel makes the API server refuse the token if the value is not empty. The
	// cleaner of legacy tokens sets it.
	InvalidSinceLabel = "kubernetes.io/legacy-token-invalid-since"
)

// usernamePrefix is the prefix of the sub claim, before "<namespace>:<name>".
const usernamePrefix = "system:serviceaccount:"

// LegacyClaims are the claims of a legacy token: the ServiceAccount that it authenticates, and
// the Secret that holds it. To sign a token, all fields are required.
type LegacyClaims struct {
	Namespace          string
	SecretName         string
	ServiceAccountName string
	ServiceAccountUID  string
}

// Subject returns the sub claim, which is also the user name:
// system:serviceaccount:<namespace>:<name>.
func (c LegacyClaims) Subject() string {
	return usernamePrefix + c.Namespace + ":" + c.ServiceAccountName
}

// validate returns an error for a missing claim, without which the API server refuses the
// token.
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

// legacyPayload is the JSON of [LegacyClaims]. go-jose writes the members sorted by name, as
// kube-controller-manager does: with an RSA key, whose signatures are deterministic, both make
// the same bytes.
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

// UnverifiedLegacyClaims returns the claims of a legacy token whose signature is not verified. It
// returns [ErrMalformed] or [ErrIssuer] if compact is not one.
func UnverifiedLegacyClaims(compact string) (LegacyClaims, error) {
	_, payload, err := parseLegacyUnverified(compact)
	switch {
	case err != nil:
		return LegacyClaims{}, err
	case payload.Issuer != LegacyIssuer:
		return LegacyClaims{}, ErrIssuer
	}
	return payload.claims(), nil
}
