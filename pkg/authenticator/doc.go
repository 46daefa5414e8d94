// Package authenticator says whose a service-account token is, as kube-apiserver does: by
// its signature, its claims, and whether all that it is bound to is alive.
//
// It keeps true:
//
//   - The checks and the user that comes of them are those of kube-apiserver 1.36, for legacy
//     and for bound tokens (a differential test compares both). Stricter on purpose: a token
//     is refused whose algorithm is not its key's own, that has white space in it, that is
//     longer than 64 KiB, that has times of 2^62 s and more, or a claim iss beside an ISS
//     that names another accepted issuer.
//   - The order is shape, issuer, key and signature, audience, time, liveness: nothing is
//     asked of a cluster for a token that nobody signed.
//   - What cannot be asked is neither yes nor no: [ErrUnavailable], which the asker tries again.
//   - Tokens are compared by SHA-256, in constant time, and kept nowhere.
//   - Issuers of other clusters ([Foreign]) give users and groups under a prefix, and never
//     one that begins with "system:". What hangs on one of them does not touch the others.
package authenticator
