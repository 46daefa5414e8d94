// Package keys loads the keys that sign and verify ServiceAccount tokens. It is the only
// loader of such keys in sakeeper, and imports no Kubernetes client.
//
// # Loading
//
// [Files] are key files as kube-controller-manager and kube-apiserver take them. [Directory]
// is a directory with a file per key, whose name has the state of the key. Load reads either
// once, and Open returns a [Loader] that follows changes. Both give a [Set]: one signing key,
// and all keys that verify. [NewSet] makes one from keys in memory.
//
//   - Parsing is strict and goes by the PEM type. A block that is damaged or does not parse
//     is an error with the number of the block. It is never skipped, so that a damaged file
//     does not mean fewer keys.
//     The exception is the JWKS of another issuer ([ParseJWKS]), who may publish keys of any
//     kind.
//   - Only keys that the API server can use are accepted: RSA of at least 2048 bits, ECDSA on
//     P-256, P-384 and P-521. One table maps a key to its JOSE algorithm.
//   - The id of a key is the one that kube-apiserver computes, so tokens and JWKS of both are
//     interchangeable ([PublicKey.ID]).
//   - A private key is opaque: if a [PrivateKey] is printed, only its id is written, and no
//     error holds bytes of the input.
//
// # States
//
// A [Keyring] is the content of a [Directory], or of a Secret with the same files. Only the
// newest key in state signing signs; a published or retired key never does. A directory with
// a file that contradicts its name is refused as a whole. Package rotation changes the states.
//
// # Concurrency
//
// Keys, sets and keyrings are immutable and safe for concurrent use; so is a [Loader].
package keys
