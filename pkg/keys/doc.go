// Package keys is the one loader of service-account signing keys. Whatever signs
// or verifies in sakeeper gets its keys here and nowhere else.
//
// # What it keeps true
//
//   - Parsing is strict and goes by the declared PEM type. A damaged block, and a
//     key that is wanted and does not parse, is an error that names the block's
//     number; it is never skipped, so a damaged file cannot mean "fewer keys".
//   - Only keys that the API server can use get in: RSA of at least 2048 bits,
//     ECDSA on P-256, P-384 and P-521.
//   - A key's id is the one that kube-apiserver computes, so tokens and JWKS of
//     both are interchangeable (see [PublicKey.ID]).
//   - The mapping from key type to JOSE algorithm stands in one table.
//   - A [Set] never changes. Rotation replaces the set (see [Files] and [Directory]).
//   - Keys have states ([Ring]), and what the states say is kept true by reading: a key
//     that nobody knows yet, or that is retired, signs nothing; only the newest of
//     several signs; a directory in which a state and its file disagree is refused as
//     a whole. Package rotation changes states, and keeps the order and the waits.
//   - Private keys are opaque: however a [PrivateKey] is printed, only its id
//     comes out, and no error holds bytes of the input.
package keys
