// Package tokenreferences keeps true that ServiceAccount.secrets names no token Secret that is
// gone.
//
// It belongs to the serviceaccount-token-controller of kube-controller-manager, which does this
// too; users switch it on and off under that name, together with package tokensecret.
//
// Inputs: token Secrets and ServiceAccounts, watched; the metadata of Secrets, by live GETs.
// Writes: ServiceAccount.secrets, by one JSON merge patch that carries UID and resourceVersion.
//
// A reference is removed in these two cases and in no other, because a user may refer to a Secret
// before creating it:
//
//   - This process saw the deletion of that token Secret of that ServiceAccount.
//   - The name has the generated form "<account>-token-xxxxx", and a live GET some seconds after
//     the account was written finds no such Secret. This covers deletions from the time when no
//     controller ran.
//
// A cache of Secrets that is cut off from the API server therefore removes no reference: a Secret
// that it does not have is no reason. One of ServiceAccounts removes none either, because the patch
// carries the resourceVersion.
//
// Other references to Secrets that do not exist are counted in sakeeper_dangling_references. An entry
// without a name, or with one that no Secret can have, stays and is not counted: an event on the
// account says so.
//
// Deletions of an account's Secrets are handled in batches, so that many of them cost a few writes.
// A deletion is remembered until the account no longer refers to the Secret, because
// the watch of ServiceAccounts may lag behind the watch of Secrets, after an outage by a minute.
// Where the cached account has no reference to the deleted Secret, or a write failed, the account
// is read live once.
//
// RBAC: manifests/rbac/serviceaccount-token-controller.
package tokenreferences
