package rootca

import (
	"crypto/sha256"

	corev1 "k8s.io/api/core/v1"

	"github.com/sakeeper/sakeeper/pkg/cache"
)

// state is what is known of one namespace.
type state struct {
	// phase is the namespace's, and empty when there is no such namespace.
	phase corev1.NamespacePhase
	// found is the ConfigMap, nil when there is none.
	found *cache.RootCA
	// sum is the SHA-256 of the CA bundle that should be published.
	sum [sha256.Size]byte
}

type action int

const (
	none action = iota
	create
	repair
)

// decide repairs whatever exists, also in a namespace on its way out, where pods
// may still start and read it; it creates in active namespaces only.
func decide(s state) (action, string) {
	switch {
	case s.found == nil && s.phase == "":
		return none, "namespace does not exist"
	case s.found == nil && s.phase != corev1.NamespaceActive:
		return none, "namespace is not active"
	case s.found == nil:
		return create, "config map is missing"
	case !s.found.HasCA:
		return repair, "ca.crt is missing"
	case s.found.CASum != s.sum:
		return repair, "ca.crt differs"
	case len(s.found.OtherKeys) > 0:
		return repair, "data has other keys"
	case !s.found.Described:
		return repair, "description is missing"
	default:
		return none, "config map is right"
	}
}
