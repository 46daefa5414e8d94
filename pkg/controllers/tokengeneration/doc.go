// Package tokengeneration gives every ServiceAccount that should have a token Secret
// one, with a reference to it, as Kubernetes did before 1.24. It is opt-in: [Mode].
//
// Inputs: ServiceAccounts, token Secrets and namespaces, watched; the CA bundle and
// the token signer, called for each Secret. Writes: one POST of a complete Secret,
// named <account>-token-<5 random>, and one JSON merge patch that adds it to
// ServiceAccount.secrets of exactly the resourceVersion that the decision read.
//
// An account needs no Secret when it refers to a token Secret that names it, whatever
// its name and creator. A Secret that the cleaner marked invalid counts, so that the
// two controllers do not work against each other; one that is being deleted does not.
// References are never removed: an account that no longer wants a token keeps its own.
//
// # One Secret per account
//
// Two objects cannot be written in one transaction, so a crash may leave a Secret
// without a reference, and a stale cache may show neither. Therefore:
//
//   - A token Secret that was generated for this account (by name and UID) and has no
//     reference gets one before another Secret is created.
//   - This process remembers what it created until the caches show all of it. A Secret
//     whose reference conflicts with a change of the account is kept, and its
//     reference is written to the account's next version.
//   - Caches may not show yet what a previous process created. Before the first Secret
//     in a namespace, its token Secrets are listed from the API server, and the cache
//     must show those of the account. Requests of a previous process may still be
//     carried out: accounts older than this process wait 10 s before that list.
//   - A create that the API server did not answer is looked up for as long.
//   - A referenced name that the cache does not have is read from the API server.
//
// A cache that is cut off from the API server causes no deletion, because only a Secret that this
// process created is deleted, by UID, and after the API server answered the patch of the account. A
// Secret that is created for an account that is gone has a token that the API server refuses.
//
// Where no reference can be written (the account is gone, it refers to another token,
// the API server forbids it), the Secret is deleted by UID, unless a client may have
// read a reference to it. After a rejection, a dry run of the next reference comes
// before another Secret is created for the account.
//
// # No name twice
//
// A legacy token says nothing but its account and its Secret. Signed by an RSA key,
// two tokens for one name are the same bytes, so a reused name brings back a token
// that a user revoked by deleting its Secret. Names are therefore random, and one is
// used again only if the API server has said that it created no Secret of it. A name
// derived from the account's UID and resourceVersion, with which a repeated decision
// would create one Secret only, is no way out: a Secret that is deleted before it is
// referenced leaves the account's version unchanged, and a stale cache or another
// process may still see a version whose Secret was referenced and then deleted. Both
// would reuse the name. With random names, the rules above ensure one Secret.
//
// # Known limits
//
// A process that is suspended for more than 10 s between its decision and its create,
// while another one takes over, creates a second Secret. It deletes that when the
// reference is rejected, but if it ends just then, an unreferenced Secret stays. The
// same is left by a process that ends after a user added a reference to another token,
// and before it deleted its own Secret. These Secrets are never deleted: they look
// like ones whose reference a user removed on purpose.
//
// RBAC: secrets list, watch, create, delete; serviceaccounts list, watch, patch;
// namespaces list, watch. The signing-key check needs more, see
// [github.com/sakeeper/sakeeper/pkg/signingkey].
package tokengeneration
