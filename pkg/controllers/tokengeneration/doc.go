// Package tokengeneration keeps true that every ServiceAccount that should have a
// token Secret refers to one, as all did before Kubernetes 1.24. It is opt-in: [Mode].
//
// Inputs: ServiceAccounts, token Secrets and namespaces, watched; the CA bundle and
// the writer of tokens, asked anew for each Secret. Writes: one POST of a Secret that
// is complete, named <account>-token-<5 random>, and one JSON merge patch that adds it
// to ServiceAccount.secrets at exactly the version of the account that was decided on.
//
// An account is provided for when it refers to a token Secret that names it, whoever
// made that and however it is called. One that is marked invalid counts, so that the
// cleaner is not worked against; one that is being deleted does not. Nothing is ever
// taken from an account: one that stops asking keeps what it has.
//
// # Never two for one account
//
// No two objects can be written at once, so a crash may leave a Secret without a
// reference, and a cache may show neither. What is done about it:
//
//   - A token Secret that was generated for this very account (by name and UID) and
//     that nobody refers to is referred to before another one is made.
//   - What this process makes is remembered until the caches show all of it, so that
//     they may lag. A Secret whose reference is refused because the account changed is
//     kept, and referred to at the account's next version.
//   - What a former process made, caches may not show yet. Before the first Secret in
//     a namespace is made, its token Secrets are listed live, and the cache must show
//     those of the account. Requests of a former process may still be under way:
//     accounts that existed at the start wait for that (10 s) before that list.
//   - A create without an answer is asked about for as long, before it is given up.
//   - A name in the account's references that the cache does not have is looked up.
//
// Where there can be no reference (the account went, another token was referred to,
// the API server forbids it), the Secret is deleted with its UID, unless somebody may
// have read a reference to it. After a refusal the next reference is rehearsed (dry
// run) before another Secret is made for it.
//
// # Never the same name twice
//
// A legacy token says nothing but its account and its Secret. Signed by an RSA key,
// two tokens for one name are the same bytes, and a name that is used again brings
// back a token that somebody has revoked by deleting its Secret. So names are random,
// and one is used again only when the API server has said that it made no Secret of
// it. A name derived from the account's UID and version, with which a decision that is
// taken twice would make one Secret only, does not do: a Secret that is deleted before
// it was referred to leaves the account at its version, and a cache or another process
// may still be at a version whose Secret was referred to and deleted since. Both make
// the name again. Random names leave the first aim to the rules above.
//
// # What does not hold
//
// A process that is suspended for more than 10 s between its decision and its create,
// while another one takes over, makes a second Secret. It deletes it when the
// reference is refused, unless it ends in that very moment: then a Secret stays to
// which nobody refers. The same is left of a process that ends after a person has
// referred to a token of their own, and before it has deleted its own. Nobody deletes
// these: they look like what a person took from the references on purpose.
//
// RBAC: secrets list, watch, create, delete; serviceaccounts list, watch, patch;
// namespaces list, watch. The gate that tokens go through needs more, see
// [github.com/sakeeper/sakeeper/pkg/signingkey].
package tokengeneration
