// Package tokenrequest keeps an unexpired token in every Secret that asks for one with
// the label sakeeper.io/token=managed and the name of a ServiceAccount of the same
// namespace in the annotation sakeeper.io/service-account.
//
// Inputs: Secrets with a label of that name, ServiceAccounts and namespaces, watched; the CA
// bundle, read for each token. Writes: for a renewal one TokenRequest, bound to the
// Secret so that deleting it revokes the token, and one JSON merge patch of exactly the
// resourceVersion of the Secret that the decision read. Nothing is written to a Secret
// that needs nothing, also not after a restart. No token is kept in memory: if a patch
// fails, the next attempt costs another TokenRequest.
//
// # Renewal
//
// A token is renewed when 70 to 80 % of the lifetime that the API server granted have
// passed, a share that is fixed by the Secret's UID, and at the latest a minute before it
// expires, but never before half of it has passed ([token.Validity.RenewAt]). A token that
// is not valid yet, because the clock of the control plane was set back, is renewed at once
// and then once a minute. It is renewed at once too when what it was filled from has changed: the annotations, the ServiceAccount (by
// UID), the CA, or the keys that were filled. An annotation holds one hash of all of
// these. Another value of sakeeper.io/rotate renews it too.
//
// Times are the API server's: those in the token's claims, compared with a clock that
// follows the Date of its responses ([kube.ServerClock]). For a token that this process
// requested itself, the time since then counts too (pkg/internal/stopwatch), so that a
// wrong clock makes no renewal late and causes no renewal after another.
//
// # What is kept, and what is removed
//
// Keys that this controller did not fill are never changed, and a Secret with other data
// in place of the token is refused. Keys that it filled are listed in
// sakeeper.io/filled-keys, and removed when the format no longer has them. All of them
// are removed when the ServiceAccount is gone, which a live GET confirms; its token would
// not become valid again, not even with a new account of that name. A Secret with invalid
// settings, with the name of another account that does not exist, or without its
// namespace's or its own label keeps its token until that expires.
//
// # What is wrong
//
// decide and failure are the only places that find a problem. It is a Warning event, with the
// answer of the API server if there is one, and the annotation sakeeper.io/problem, which stays:
// events are kept for an hour. The annotation is written and removed with the token where one is
// written or removed, and else by a patch of its own, at a bounded rate and with the write backoff.
// Its text is no input of a decision and does not change from one attempt to the next, so that the
// write causes no other. Where the annotation says it already, as after a restart, there is no event.
//
// A Secret whose label has another value is not managed, and one of a type of Kubernetes belongs to
// another component: both have an event, once in a process, and nothing is written to them. Where
// the API server refuses the annotation, as in namespaces without the rights of this controller,
// the event alone remains.
//
// # Caches that are cut off
//
// The TokenRequest is granted for the account that exists at that time, and the patch carries the
// resourceVersion of the Secret, so that an old cache of either gives a token to no Secret that
// changed. Content is removed only after the live GET. A namespace that is no longer allowed may get
// renewals until the cache shows that.
//
// # Security
//
// A user who can create and read Secrets in a served namespace gets tokens of all of its
// ServiceAccounts, so a namespace is served only with the label
// sakeeper.io/token-requests=allowed, unless [Config.AllNamespaces].
//
// RBAC: manifests/rbac/token-request-controller and token-request-controller-served.
package tokenrequest
