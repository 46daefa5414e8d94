package inventory

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"maps"
	"regexp"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/inventory/reach"
	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// Secret is a reduced Secret. It has no data.
type Secret struct {
	Namespace, Name string
	UID             types.UID
	Created         time.Time
	// LastUsed and InvalidSince are the labels with the dates that the API server and the cleaner
	// of legacy tokens set; empty if there are none.
	LastUsed, InvalidSince string
	// Tokens are those in the data, in the order of the keys.
	Tokens []Held
}

// Held is a token in the data of a Secret.
type Held struct {
	// DataKey is the key of the data.
	DataKey string
	Kind    Kind
	// Account is the one of the claims, or, if these cannot be read, of the Secret's annotation.
	Account reach.Account
	UID     types.UID
	// Secret and Pod are what the token is bound to; for a legacy token, Secret is its own.
	Secret, Pod token.Ref
	// KeyID is the kid of the token, and Published says whether the API server publishes a key
	// that verifies it.
	KeyID     string
	Published Answer
	// Issued and Expires are zero if the token does not have them.
	Issued, Expires time.Time

	// sum tells tokens apart.
	sum [sha256.Size]byte
}

// Kind is how a token was made.
type Kind string

// The kinds of tokens.
const (
	Legacy  Kind = "legacy"  // in a Secret of type kubernetes.io/service-account-token, or a copy
	Bound   Kind = "bound"   // from the TokenRequest API
	Managed Kind = "managed" // from the TokenRequest API, renewed by sakeeper
)

// Answer is yes, no or unknown.
type Answer string

// The answers.
const (
	Yes     Answer = "yes"
	No      Answer = "no"
	Unknown Answer = "unknown"
)

// Scanner reduces Secrets. It is safe for concurrent use.
type Scanner struct {
	verifier *token.Verifier // nil if the keys are unknown
}

// NewScanner returns a scanner that knows the keys that the API server publishes; nil if they are
// unknown.
func NewScanner(published *keys.Set) *Scanner {
	if published == nil {
		return &Scanner{}
	}
	return &Scanner{verifier: token.NewVerifier(func() *keys.Set { return published })}
}

// jwt finds JWTs in any text, such as a kubeconfig or the configuration of an Argo CD cluster.
var jwt = regexp.MustCompile(`eyJ[\w-]+\.[\w-]+\.[\w-]+`)

// Secret reduces a Secret.
func (s *Scanner) Secret(secret *corev1.Secret) Secret {
	reduced := Secret{
		Namespace: secret.Namespace, Name: secret.Name, UID: secret.UID, Created: secret.CreationTimestamp.Time,
		LastUsed: secret.Labels[token.LastUsedLabel], InvalidSince: secret.Labels[token.InvalidSinceLabel],
	}
	ownType := secret.Type == corev1.SecretTypeServiceAccountToken
	for _, key := range slices.Sorted(maps.Keys(secret.Data)) {
		value := secret.Data[key]
		found := s.tokens(value)
		if ownType && key == corev1.ServiceAccountTokenKey && len(found) == 0 && len(value) > 0 {
			found = []Held{{Kind: Legacy, Published: s.unverifiable()}} // not a token, but in the place of one
		}
		for _, held := range found {
			held.DataKey = key
			if ownType && held.Account == (reach.Account{}) {
				held.Account = reach.Account{Namespace: secret.Namespace, Name: secret.Annotations[corev1.ServiceAccountNameKey]}
				held.UID = types.UID(secret.Annotations[corev1.ServiceAccountUIDKey])
			}
			if held.Account.Name == "" {
				continue
			}
			if held.Kind == Bound && secret.Labels[api.TokenLabel] == api.TokenManaged {
				held.Kind = Managed
			}
			reduced.Tokens = append(reduced.Tokens, held)
		}
	}
	return reduced
}

// tokens returns the tokens of ServiceAccounts in a text, each once.
func (s *Scanner) tokens(text []byte) []Held {
	if !bytes.Contains(text, []byte("eyJ")) {
		return nil
	}
	var found []Held
	seen := map[string]bool{}
	for _, match := range jwt.FindAll(text, -1) {
		if compact := string(match); !seen[compact] {
			seen[compact] = true
			if held, ok := s.token(compact); ok {
				found = append(found, held)
			}
		}
	}
	return found
}

// token reads one token. ok is false if it is not one of a ServiceAccount.
func (s *Scanner) token(compact string) (held Held, ok bool) {
	issuer, err := token.UnverifiedIssuer(compact)
	if err != nil {
		return Held{}, false
	}
	held = Held{KeyID: token.UnverifiedKeyID(compact), Published: s.published(compact, issuer), sum: sha256.Sum256([]byte(compact))}
	if issuer == token.LegacyIssuer {
		claims, err := token.UnverifiedLegacyClaims(compact)
		if err != nil {
			return Held{}, false
		}
		held.Kind, held.Account, held.UID = Legacy, reach.Account{Namespace: claims.Namespace, Name: claims.ServiceAccountName}, types.UID(claims.ServiceAccountUID)
		held.Secret.Name = claims.SecretName
		return held, true
	}
	claims, err := token.UnverifiedBoundClaims(compact)
	if err != nil || claims.ServiceAccount.Name == "" {
		return Held{}, false
	}
	held.Kind, held.Account, held.UID = Bound, reach.Account{Namespace: claims.Namespace, Name: claims.ServiceAccount.Name}, types.UID(claims.ServiceAccount.UID)
	held.Secret, held.Pod = claims.Secret, claims.Pod
	held.Issued, held.Expires = claims.Validity.Issued, claims.Validity.Expires
	return held, true
}

func (s *Scanner) published(compact, issuer string) Answer {
	if s.verifier == nil {
		return Unknown
	}
	switch _, err := s.verifier.Verify(compact, issuer); {
	case errors.Is(err, token.ErrUnknownKey), errors.Is(err, token.ErrSignature), errors.Is(err, token.ErrMalformed):
		return No
	default:
		return Yes // a key verified the signature, whatever else may be wrong
	}
}

func (s *Scanner) unverifiable() Answer {
	if s.verifier == nil {
		return Unknown
	}
	return No
}
