package tokenreferences

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/sakeeper/sakeeper/pkg/cache"
)

// decision is what happens to a reference.
type decision int

const (
	keep   decision = iota // the Secret exists, or the name is unusable
	count                  // keep it, and count it if the API server has no such Secret
	lookUp                 // remove it if the API server has no such Secret
	remove                 // remove it
)

// reference is what is known about one name in ServiceAccount.secrets.
type reference struct {
	account, name string
	cached        bool // the cache has a token Secret of that name
	deleted       bool // this process saw the deletion of that token Secret of this account
}

func decide(r reference) decision {
	switch {
	case r.cached, unusable(r.name):
		return keep
	case r.deleted:
		return remove
	case cache.IsGeneratedName(r.account, r.name):
		return lookUp
	default:
		return count
	}
}

// unusable returns true if no Secret can have this name. There is nothing to look up.
func unusable(name string) bool { return len(validation.IsDNS1123Subdomain(name)) > 0 }

// without returns refs without those whose name is stale, in the same order.
func without(refs []corev1.ObjectReference, stale map[string]bool) []corev1.ObjectReference {
	var left []corev1.ObjectReference
	for _, ref := range refs {
		if !stale[ref.Name] {
			left = append(left, ref)
		}
	}
	return left
}
