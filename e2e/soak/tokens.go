package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/pkg/api"
)

// keySet is the keys that the API server publishes, and the id of the one that signs.
type keySet struct {
	jose.JSONWebKeySet

	signing string
}

func (w *world) readKeys(ctx context.Context) (s keySet, err error) {
	body, err := w.client.Discovery().RESTClient().Get().AbsPath("/openid/v1/jwks").DoRaw(ctx)
	if err == nil {
		err = json.Unmarshal(body, &s.JSONWebKeySet)
	}
	if err != nil {
		return s, err
	}
	entries, err := os.ReadDir(w.keys)
	if err != nil {
		return s, err
	}
	for _, entry := range entries { // sorted: of several that sign, the newest does
		if parts := strings.Split(entry.Name(), "."); len(parts) == 4 && parts[1] == "signing" {
			s.signing = parts[2]
		}
	}
	for _, k := range s.Keys {
		if strings.HasPrefix(k.KeyID, s.signing) {
			s.signing = k.KeyID
		}
	}
	return s, nil
}

// claims are those of both kinds of tokens.
type claims struct {
	jwt.Claims

	LegacyNamespace string `json:"kubernetes.io/serviceaccount/namespace"`
	LegacySecret    string `json:"kubernetes.io/serviceaccount/secret.name"`
	LegacyUID       string `json:"kubernetes.io/serviceaccount/service-account.uid"`
	Bound           struct {
		Account struct {
			UID string `json:"uid"`
		} `json:"serviceaccount"`
		Secret struct {
			Name string `json:"name"`
			UID  string `json:"uid"`
		} `json:"secret"`
	} `json:"kubernetes.io"`

	keyID string
}

var algorithms = []jose.SignatureAlgorithm{jose.RS256, jose.ES256, jose.ES384, jose.ES512}

// verify returns the claims of a token that a published key verifies.
func (s keySet) verify(token string) (c claims, err error) {
	if token == "" {
		return c, errors.New("no token")
	}
	parsed, err := jwt.ParseSigned(token, algorithms)
	if err != nil {
		return c, errors.New("the token is no JWT")
	}
	c.keyID = parsed.Headers[0].KeyID
	for _, k := range s.Key(c.keyID) {
		if parsed.Claims(k.Key, &c) == nil {
			return c, nil
		}
	}
	return c, fmt.Errorf("no published key verifies the token of key %s", c.keyID)
}

// review asks the API server about every token that must be good.
func (w *world) review(ctx context.Context, v view) (f findings, err error) {
	ask := func(what, token, uid string) {
		review, e := w.client.AuthenticationV1().TokenReviews().Create(ctx, &authenticationv1.TokenReview{
			Spec: authenticationv1.TokenReviewSpec{Token: token},
		}, metav1.CreateOptions{})
		if e != nil {
			err = errors.Join(err, e)
		} else if !review.Status.Authenticated || review.Status.User.UID != uid {
			f.add("refused", "token of %s: authenticated %t, UID %q, want %q: %s", what, review.Status.Authenticated, review.Status.User.UID, uid, review.Status.Error)
		}
	}
	for name, s := range v.secrets {
		account := s.Annotations[corev1.ServiceAccountNameKey]
		if isManaged(s) {
			account = s.Annotations[api.ServiceAccountAnnotation]
		}
		if a, ok := v.accounts[key(s.Namespace, account)]; ok {
			ask("Secret "+name, string(s.Data[corev1.ServiceAccountTokenKey]), string(a.UID))
		}
	}
	for _, b := range w.model.Tokens {
		if got, err := v.keys.verify(b.Token); err == nil && got.Expiry.Time().After(v.now) {
			ask("account "+b.Account, b.Token, b.UID)
		}
	}
	return f, err
}
