package token

import (
	"crypto/sha256"

	"k8s.io/utils/lru"
)

// Recent remembers the facts of the tokens that were signed or inspected last: a Secret
// that is filled comes back with the token that was just made, and one that changes in
// another way has the token that it had. It keeps hashes, and no tokens. It is safe for
// concurrent use; nil remembers nothing.
type Recent struct{ facts *lru.Cache }

// memorable is the length of the longest token that is remembered. Those of keys in use are
// far shorter; what somebody else puts into Secrets may be of claims without end.
const memorable = 4 << 10

// NewRecent remembers so many tokens.
func NewRecent(size int) *Recent { return &Recent{facts: lru.New(size)} }

func (r *Recent) add(compact string, facts Facts) {
	if r != nil && len(compact) <= memorable {
		r.facts.Add(sha256.Sum256([]byte(compact)), facts)
	}
}

// of are the facts of a token, unless there are other keys now than those that it was
// tried with in vain.
func (r *Recent) of(compact, set string) (Facts, bool) {
	if r == nil {
		return Facts{}, false
	}
	found, ok := r.facts.Get(sha256.Sum256([]byte(compact)))
	if !ok {
		return Facts{}, false
	}
	facts, ok := found.(Facts)
	return facts, ok && (facts.VerifiedBy != "" || facts.TriedWith == set)
}
