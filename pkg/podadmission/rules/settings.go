package rules

import (
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/rand"
)

const (
	// EnforceAnnotation on a ServiceAccount limits the Secrets that its pods may name.
	EnforceAnnotation = "kubernetes.io/enforce-mountable-secrets"
	// TokenVolumePrefix begins the name of the volume with the projected token.
	TokenVolumePrefix = "kube-api-access-"
)

// TokenVolumeSource is where mounted tokens come from.
type TokenVolumeSource string

// The values of --token-volume-source.
const (
	// ProjectedTokens are made by kubelet for each pod, and expire.
	ProjectedTokens TokenVolumeSource = "projected"
	// SecretTokens are those of token Secrets, as before Kubernetes 1.22.
	SecretTokens TokenVolumeSource = "secret"
)

// Scope is which kinds of references to Secrets are limited.
type Scope string

// The values of --secret-reference-scope.
const (
	// InTreeScope is Secret volumes, env and envFrom of containers, and pull secrets.
	InTreeScope Scope = "in-tree"
	// AllScope is every kind that a PodSpec has.
	AllScope Scope = "all"
)

// Settings are those of the process.
type Settings struct {
	// TokenVolumeSource says which tokens are mounted. Empty: ProjectedTokens.
	TokenVolumeSource TokenVolumeSource
	// LimitSecretReferences limits the Secrets that any pod may name to those of its
	// ServiceAccount. False: those of pods whose ServiceAccount asks for it.
	LimitSecretReferences bool
	// SecretReferenceScope says which references are limited. Empty: InTreeScope.
	SecretReferenceScope Scope
	// Suffix makes the end of a volume name that must be unique. Nil: five random
	// letters and digits, as in other generated names.
	Suffix func() string
}

// Check tells whether the settings have values that exist.
func (s Settings) Check() error {
	switch s.TokenVolumeSource {
	case "", ProjectedTokens, SecretTokens:
	default:
		return fmt.Errorf("token volume source %q is neither %q nor %q", s.TokenVolumeSource, ProjectedTokens, SecretTokens)
	}
	switch s.SecretReferenceScope {
	case "", InTreeScope, AllScope:
		return nil
	default:
		return fmt.Errorf("secret reference scope %q is neither %q nor %q", s.SecretReferenceScope, InTreeScope, AllScope)
	}
}

// limits tells whether pods of account may name its Secrets only.
func (s Settings) limits(account *corev1.ServiceAccount) bool {
	if s.LimitSecretReferences {
		return true
	}
	// What is no boolean limits nothing, as in-tree.
	enforced, err := strconv.ParseBool(account.Annotations[EnforceAnnotation])
	return err == nil && enforced
}

// suffixLength is that of names that the API machinery generates.
const suffixLength = 5

func (s Settings) suffix() string {
	if s.Suffix == nil {
		return rand.String(suffixLength)
	}
	return s.Suffix()
}
