// Package signingkey checks that the API server accepts the signing key, so that at most one
// token is written with a key that it does not accept.
//
// After the start and after each change of the key, the first token is written and checked by
// a TokenReview. Until the API server accepts it, all other writes of tokens wait. The token
// must be written first, because the API server compares a legacy token with the one in its
// Secret.
//
// The key is refused when every review for a minute refuses the first token, because API
// servers lag. Then no token is written until the key is replaced or a later review accepts
// the token. If a review fails, no token is written either, and the review is retried with
// backoff. In both cases [Check.Ready] returns the id of the key and the reason.
//
// When the key is replaced, a first token that the API server refuses is removed from its
// Secret, which then gets a new token. If the process ends before that, the repair of invalid
// tokens replaces it. While signing fails, the attempts in a second are limited.
//
// If the Secret of the first token is changed or deleted, the next token is checked instead.
//
// A token that the API server has accepted is not reviewed again, and not kept in memory.
package signingkey
