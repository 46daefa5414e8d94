package keys

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/go-jose/go-jose/v4"
)

// ParseJWKS reads the keys of a JSON Web Key Set (RFC 7517) that verify signatures. Each has the
// kid of its JWK as its id, or its own id if that has none. A key for another use is left out.
//
// A JWK that cannot be used, as one of an unknown type, is left out too, because an issuer may
// publish keys for others than us beside its own. For each of them unusable has an error with its
// number and kid, and nothing else of it. err is not nil if data is not a JWKS at all.
func ParseJWKS(data []byte) (found []PublicKey, unusable []error, err error) {
	var document struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if json.Unmarshal(data, &document) != nil || document.Keys == nil {
		return nil, nil, errors.New("is not a JSON document with a list of keys")
	}
	for i, one := range document.Keys {
		key, use, err := parseJWK(one)
		switch {
		case err != nil:
			unusable = append(unusable, fmt.Errorf("key %d%s: %w", i+1, kidOf(one), err))
		case use == "" || use == "sig":
			found = append(found, key)
		}
	}
	return found, unusable, nil
}

func parseJWK(data []byte) (key PublicKey, use string, err error) {
	var parsed jose.JSONWebKey
	if err := json.Unmarshal(data, &parsed); err != nil {
		// The text of the error may quote the JWK.
		return PublicKey{}, "", errors.New("is of an unknown type, or is not a valid JWK")
	}
	key, err = NewPublicKey(parsed.Key)
	if parsed.KeyID != "" {
		key = key.WithID(parsed.KeyID)
	}
	return key, parsed.Use, err
}

// kidOf returns the kid of a JWK for an error; empty if it has none.
func kidOf(data []byte) string {
	var named struct {
		ID string `json:"kid"`
	}
	if json.Unmarshal(data, &named) != nil || named.ID == "" {
		return ""
	}
	return fmt.Sprintf(" with kid %.64q", named.ID)
}
