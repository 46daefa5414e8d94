// Package token signs and verifies ServiceAccount tokens, reads their claims, and computes when
// to renew them. It makes no requests and imports no Kubernetes client.
//
// A legacy token is in a Secret of type kubernetes.io/service-account-token. It does not
// expire, and is valid while its Secret holds it and its ServiceAccount has the UID in its
// claims. A bound token comes from the TokenRequest API (KEP-1205). It expires, and is valid
// only while the objects exist that it is bound to. This package checks signatures and claims;
// whether the objects exist is up to the caller.
//
// # Signing and verifying
//
// [Signer] signs with the current signing key, and [Verifier] verifies with all keys of a
// [keys.Set]. Both get the set from a function at each call, so that a rotation needs no
// restart. Functions with Unverified in their names check no signature.
//
// # Renewal
//
// [Validity.RenewAt] is the time to renew a token: after 70 to 80 % of its lifetime.
//
// Tokens are credentials: no error of this package holds a token or a part of one.
package token
