// Package tokenrequest keeps true that a Secret which asks for it holds a token that is
// good and never old: the label sakeeper.io/token=managed, and a ServiceAccount of the
// same namespace in the annotation sakeeper.io/service-account.
//
// Inputs: Secrets with that label, ServiceAccounts and namespaces, watched; the CA
// bundle, asked anew for each token. Writes: for a renewal one TokenRequest, bound to the
// Secret so that deleting it revokes the token, and one JSON merge patch of exactly the
// version of the Secret that was decided on. Nothing else is written, and nothing is
// for a Secret that is right, also not after a restart. No token is kept in memory:
// where a patch fails, the next try costs another TokenRequest.
//
// # When
//
// A token is renewed when 70 to 80 % of the lifetime that the server gave it have
// passed, a share that is fixed by the Secret's UID, and at the latest a minute before it
// expires, but never before half of it has passed ([token.Validity.RenewAt]). It is renewed at
// once when anything is not as it was when it was filled: what the annotations ask for,
// the ServiceAccount (by UID), the CA, and the keys that were filled. All of that is in
// one hash in an annotation. Another value of sakeeper.io/rotate renews it too.
//
// Times are the server's: those in the token's claims, compared with a clock that
// follows the Date of the server's answers ([kube.ServerClock]). For a token that this process
// has asked for itself, the time since then counts too (pkg/internal/stopwatch), so that clocks which are far
// apart neither make a renewal late nor make one follow the other.
//
// # What stays, and what goes
//
// Keys that were not filled here are left alone, and a Secret that has something of its
// own where the token would go is refused. Those that were are noted in
// sakeeper.io/filled-keys, and are removed when the format has them no more. They are all
// removed when the ServiceAccount is gone, which is asked of the API server first; a token
// of it would not come to life again, not even with an account of that name. A Secret whose
// settings are wrong, that names another account which does not exist, or whose namespace
// or label is not there any more, keeps its token until that expires.
//
// # What it means for security
//
// Whoever may create and read Secrets in a served namespace gets tokens of all of its
// ServiceAccounts, so a namespace is served only with the label
// sakeeper.io/token-requests=allowed, unless [Config.Everywhere].
//
// RBAC: manifests/components/token-requests.
package tokenrequest
