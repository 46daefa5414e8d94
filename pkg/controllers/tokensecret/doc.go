// Package tokensecret keeps true that every Secret of type kubernetes.io/service-account-token is
// right, or deleted. The floor is serviceaccount-token-controller of kube-controller-manager, whose
// other half is package tokenreferences.
//
// Inputs: token Secrets and ServiceAccounts, watched; settings in annotations of namespaces,
// watched; the CA bundle, the known keys and the signer of tokens, read anew for each decision. Call
// [Controller.EnqueueAll] when the CA or the keys changed, or when tokens may be written again.
//
// # Secrets
//
// A Secret names its ServiceAccount by annotation, and after it was filled its UID too. If the
// account exists, a missing token is filled in and a differing ca.crt or namespace is replaced. The
// same write sets both annotations, but they alone are no reason for a write. If the account does
// not exist, the Secret is deleted, with its UID and resourceVersion as preconditions, and a Warning
// event on its namespace says why, one for all that are deleted there within some seconds for the same
// reason. The account does not exist if this process saw the deletion of that very UID, or else if a
// live GET says so, because a cache may lag. A Secret that names no UID is deleted only if its account
// is still missing 5 seconds after that was first seen, because clients create both in any order;
// in-tree deletes it at once.
//
// A Secret whose annotation has a name that no ServiceAccount can have is left alone, with one event.
//
// If a list, the first too, leaves more than 20 Secrets or a tenth of all without their account, then
// the API server may have answered wrongly. Each of these Secrets is deleted only if two GETs, at
// least 10 seconds apart, do not find its account, and at most 10 of them are deleted in a second.
//
// A Secret without a token is cached whole and filled by one PUT of that object, without a GET
// before it: the resourceVersion protects it. Of all other Secrets only a few values are cached, and
// they are changed by one JSON merge patch.
//
// A cache that is cut off from the API server causes no deletion: the deletion of a ServiceAccount
// must have been seen, and a UID never comes back, or else be confirmed live; a change of the Secret
// makes the precondition fail. It may cause a token, which the API server refuses once the account
// is gone.
//
// One mistake could only be avoided by a GET per Secret: a Secret without a UID may be filled for an
// account that is deleted already, when the cache does not show that yet. When the deletion is seen,
// the token is removed again and the Secret is filled for the new account of that name; in-tree
// deletes such a Secret.
//
// # Tokens
//
// Any content of "token" may be refused by the API server, except a legacy token for this Secret and
// this UID that a known key verifies: a key of the controllers, or one that the API server publishes. It is replaced by a new token if it is
//
//   - a token for another Secret or ServiceAccount that a known key verifies, at once and without a
//     TokenReview, which would count as a use; also one that the API server accepts as that of another
//     ServiceAccount;
//   - a token for this Secret that a known key verifies and that names another UID than the account
//     has, when two TokenReviews 5 seconds apart were refused;
//   - anything else, such as a token of an unknown key or one that is made up or truncated, when three
//     TokenReviews over 10 minutes were refused.
//
// What the API server accepts as this ServiceAccount stays. So does, without reviews, the token of a
// Secret that the cleaner marked, that is being deleted, or that has (or whose namespace has) the
// annotation sakeeper.io/resign=never. One event on the Secret says so. Tokens of keys that only
// verify are signed anew on request. That the API server accepted a token is noted in an annotation of
// the Secret, for this token and these keys, so that no other process asks again. Refusals are not
// noted: the next process begins anew.
//
// Reviews and new signatures are rate limited, and [Controller.EnqueueAll] spreads the repairs that a
// new CA needs. Writes that another client keeps undoing, and repairs that the API server refuses, are
// repeated ever more slowly (pkg/internal/writebackoff), while a dead token is replaced all the same.
//
// RBAC: manifests/rbac/serviceaccount-token-controller.
package tokensecret
