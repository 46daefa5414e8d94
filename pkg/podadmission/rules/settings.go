package rules

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/rand"
)

const (
	// EnforceAnnotation on a ServiceAccount limits its pods to the Secrets that it lists.
	EnforceAnnotation = "kubernetes.io/enforce-mountable-secrets"
	// TokenVolumePrefix is the prefix of the name of the volume with the projected token.
	TokenVolumePrefix = "kube-api-access-"
)

// TokenVolumeSource is the source of mounted tokens.
type TokenVolumeSource string

// The values of --token-volume-source.
const (
	// ProjectedTokens are requested by kubelet for each pod, and expire.
	ProjectedTokens TokenVolumeSource = "projected"
	// SecretTokens come from token Secrets, as before Kubernetes 1.22.
	SecretTokens TokenVolumeSource = "secret"
)

// Scope says which kinds of references to Secrets are limited.
type Scope string

// The values of --secret-reference-scope.
const (
	// InTreeScope is Secret volumes, env and envFrom of containers, and pull secrets.
	InTreeScope Scope = "in-tree"
	// AllScope is every kind of reference in a PodSpec.
	AllScope Scope = "all"
)

// Settings are the settings of the rules. The zero value has the rules of kube-apiserver.
type Settings struct {
	// TokenVolumeSource says which tokens are mounted. Empty: ProjectedTokens.
	TokenVolumeSource TokenVolumeSource
	// TokenExpirationSeconds is the lifetime that a projected token requests. Zero: [TokenSeconds].
	// kubelet renews the token before that; a client that never reads the file again fails then
	// with any other value than [TokenSeconds].
	TokenExpirationSeconds int64
	// LimitSecretReferences limits every pod to the Secrets that its ServiceAccount lists. False:
	// only pods whose ServiceAccount has [EnforceAnnotation].
	LimitSecretReferences bool
	// SecretReferenceScope says which references are limited. Empty: InTreeScope.
	SecretReferenceScope Scope
	// Suffix returns the end of a volume name that must be unique. It is called concurrently.
	// Nil: five random letters and digits, as in other generated names.
	Suffix func() string
}

// Check returns an error if a setting has an unknown value.
func (s Settings) Check() error {
	switch s.TokenVolumeSource {
	case "", ProjectedTokens, SecretTokens:
	default:
		return fmt.Errorf("token volume source %q is neither %q nor %q", s.TokenVolumeSource, ProjectedTokens, SecretTokens)
	}
	if s.TokenExpirationSeconds != 0 {
		if err := CheckTokenSeconds(s.TokenExpirationSeconds); err != nil {
			return fmt.Errorf("token expiration seconds: %w", err)
		}
	}
	switch s.SecretReferenceScope {
	case "", InTreeScope, AllScope:
		return nil
	default:
		return fmt.Errorf("secret reference scope %q is neither %q nor %q", s.SecretReferenceScope, InTreeScope, AllScope)
	}
}

// CheckTokenSeconds returns an error if API servers refuse that lifetime in a volume.
func CheckTokenSeconds(seconds int64) error {
	if seconds < 600 || seconds > 1<<32 {
		return fmt.Errorf("%d is not between 600 and %d", seconds, int64(1)<<32)
	}
	return nil
}

// limits returns true if pods of account may only name Secrets that it lists.
func (s Settings) limits(account *corev1.ServiceAccount) bool {
	if s.LimitSecretReferences {
		return true
	}
	return slices.Contains(EnforceValues(), account.Annotations[EnforceAnnotation])
}

// EnforceValues are the values of [EnforceAnnotation] that limit pods: those that in-tree parses as
// the boolean true. Any other value limits nothing, as in-tree.
func EnforceValues() []string { return []string{"1", "t", "T", "true", "TRUE", "True"} }

// suffixLength is the same as in names that the API server generates.
const suffixLength = 5

func (s Settings) suffix() string {
	if s.Suffix == nil {
		return rand.String(suffixLength)
	}
	return s.Suffix()
}
