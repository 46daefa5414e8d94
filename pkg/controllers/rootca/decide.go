package rootca

import (
	"crypto/sha256"

	corev1 "k8s.io/api/core/v1"

	"github.com/sakeeper/sakeeper/pkg/cache"
)

// state is the cached state of one namespace.
type state struct {
	// phase is that of the namespace, empty if the namespace does not exist.
	phase corev1.NamespacePhase
	// found is the ConfigMap, nil if it does not exist.
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

// decide creates ConfigMaps in active namespaces only. It also repairs those of terminating
// namespaces, in which pods may still start and read them.
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
