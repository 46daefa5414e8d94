package token

import (
	"crypto/sha256"

	"k8s.io/utils/lru"
)

// Recent remembers the facts of the tokens that were signed last: a Secret that is filled
// comes back with the token that was just made. It keeps hashes, and no tokens. It is safe
// for concurrent use; nil remembers nothing.
type Recent struct{ facts *lru.Cache }

// NewRecent remembers so many tokens.
func NewRecent(size int) *Recent { return &Recent{facts: lru.New(size)} }

func (r *Recent) add(compact string, facts Facts) {
	if r != nil {
		r.facts.Add(sha256.Sum256([]byte(compact)), facts)
	}
}

// of are the facts of a token.
func (r *Recent) of(compact string) (Facts, bool) {
	if r == nil {
		return Facts{}, false
	}
	found, _ := r.facts.Get(sha256.Sum256([]byte(compact)))
	facts, ok := found.(Facts)
	return facts, ok
}
