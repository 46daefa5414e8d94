// Package tokensecret keeps true that every Secret of type
// kubernetes.io/service-account-token is right, or gone, and that no
// ServiceAccount refers to one that is gone.
//
// Inputs: token Secrets and ServiceAccounts, watched; the CA bundle and the
// writer of tokens, asked anew for each decision. Call [Controller.EnqueueAll] when the
// CA or the keys changed.
//
// # Secrets
//
// A Secret names its ServiceAccount by annotation, and once it was filled its UID
// too. Where that account exists, a missing token and namespace are filled and a
// differing ca.crt is repaired; both annotations are set in the same write, and
// are no reason for a write of their own. Where it does not exist, the Secret is
// deleted with its UID and resourceVersion. "Does not exist" means that the API
// server said so: by the deletion of that very UID, seen here, or else by a live
// GET, because a cache may lag.
//
// A Secret without a token is cached whole and filled by one PUT of that object:
// no GET before it, since resourceVersion tells whether it is still the same.
// All others are cached as a few values and changed by one JSON merge patch.
//
// One mistake cannot be avoided without a GET per Secret: a Secret without a UID
// may be filled for an account that is gone already, when the cache does not show
// that yet. It is noticed when the deletion is, and the token is taken back and
// made anew for the account's successor; in-tree deletes such a Secret.
//
// # Tokens that were written once
//
// A token that this Secret was made for, and that no known key verifies or that names
// another UID, may be dead. It is shown to the API server, and signed anew when that
// refused it three times over 10 minutes; of keys that only verify, on request. One
// that the API server accepts, or that is somebody's own, is left alone. What the API
// server said is noted on the Secret, for this token and these keys, so that the next
// process neither asks again nor begins anew.
//
// Repairs, exams and new signatures are paced, and what somebody keeps undoing is left
// alone (pkg/internal/writebackoff).
//
// # References
//
// When a Secret goes, its name goes from ServiceAccount.secrets, by these rules
// and no others, so that nothing a person meant is lost:
//
//   - this process saw the token Secret of that account go, or
//   - the name has the generated form "<account>-token-xxxxx" and a live GET says
//     that there is no such Secret, some seconds after the account was written.
//     This is what makes up for deletions that happened while no controller ran.
//
// There is one key per account, and deletions are gathered for a moment, so many
// deleted Secrets of one account cost a few writes, not one each. What was seen going
// is remembered until no reference to it is left, because the watch of accounts may
// lag behind that of Secrets by a minute after an outage. So where the cache shows no
// reference, or a write failed, the account is read live, once.
//
// RBAC: manifests/rbac/serviceaccount-token-controller.
//
// The floor is serviceaccount-token-controller of kube-controller-manager.
package tokensecret
