package token

import (
	"crypto/sha256"

	"k8s.io/utils/lru"
)

// Cache has the [Inspection] of the tokens that a [Signer] signed last, so that a [Verifier]
// need not verify them when their Secrets arrive in a watch. It keeps hashes, not tokens. It is
// safe for concurrent use. A nil Cache is empty.
type Cache struct{ inspections *lru.Cache }

// NewCache returns a cache of at most size tokens.
func NewCache(size int) *Cache { return &Cache{inspections: lru.New(size)} }

func (c *Cache) add(compact string, inspection Inspection) {
	if c != nil {
		c.inspections.Add(sha256.Sum256([]byte(compact)), inspection)
	}
}

func (c *Cache) get(compact string) (Inspection, bool) {
	if c == nil {
		return Inspection{}, false
	}
	found, _ := c.inspections.Get(sha256.Sum256([]byte(compact)))
	inspection, ok := found.(Inspection)
	return inspection, ok
}
