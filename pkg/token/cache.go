package token

import (
	"crypto/sha256"

	"k8s.io/utils/lru"
)

// Recent remembers the facts of the tokens that were signed last: a Secret that is filled
// comes back with the token that was just made. It keeps hashes, and no tokens. It is safe
// for concurrent use; nil remembers nothing.
type Cache struct{ inspections *lru.Cache }

// NewRecent remembers so many tokens.
func NewCache(size int) *Cache { return &Cache{inspections: lru.New(size)} }

func (r *Cache) add(compact string, facts Inspection) {
	if r != nil {
		r.inspections.Add(sha256.Sum256([]byte(compact)), facts)
	}
}

// of are the facts of a token.
func (r *Cache) get(compact string) (Inspection, bool) {
	if r == nil {
		return Inspection{}, false
	}
	found, _ := r.inspections.Get(sha256.Sum256([]byte(compact)))
	facts, ok := found.(Inspection)
	return facts, ok
}
