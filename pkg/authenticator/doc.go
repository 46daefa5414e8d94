// Package authenticator verifies ServiceAccount tokens as kube-apiserver does: by signature, by
// claims, and by whether the objects that a token is bound to exist. [Authenticator.Handler]
// answers TokenReviews.
//
// It guarantees:
//
//   - The checks and the resulting user are those of kube-apiserver 1.37, for legacy and for
//     bound tokens (a differential test compares both). Stricter on purpose: it refuses a token
//     whose algorithm is not the one of its key, that contains white space, that is longer than
//     64 KiB, that has times of 2^62 s and more, that has a claim ISS which names another
//     accepted issuer than its claim iss, or whose private claims have a member that it does not
//     know, because that may be a kind of object whose deletion revokes the token. Tokens that
//     are bound to a webhook configuration are checked as with the feature gate
//     APIServerWebhookAuthenticationToken of kube-apiserver on.
//   - The order is shape, issuer, key and signature, audience, time, objects: a token without a
//     valid signature costs no request to an API server.
//   - If an object cannot be read, the token is neither accepted nor refused: the error wraps
//     [ErrUnavailable], and the API server repeats the review.
//   - Tokens are compared by SHA-256, in constant time, and not stored.
//   - Issuers of other clusters ([TrustedIssuer]) give users and groups with a prefix, and never
//     one that begins with "system:". Failures of one issuer do not affect the others.
package authenticator
