// Package tokencleaner cleans up legacy tokens that are not used: it marks them, which makes
// the API server refuse them, and later deletes their Secrets if they are still not used.
//
// Inputs: token Secrets, their ServiceAccounts and namespaces, from caches; the ConfigMap
// kube-apiserver-legacy-service-account-token-tracking, read live once per pass; the pods of
// the namespaces in which a decision depends on them, listed in pages and not cached. A pass
// begins at the start and after every interval.
//
// # Rules
//
// The period is a flag of the process. Nothing is done before the API server has recorded
// uses for that long, counted from the day after the one on which it began. A token Secret
// is marked if all of this is true:
//
//   - it is older than the period,
//   - no use is recorded, or the last one is older than the period,
//   - its ServiceAccount exists and refers to it, as for tokens that were generated before
//     Kubernetes 1.24,
//   - no pod refers to it, whatever phase the pod is in.
//
// It is deleted if all of that is still true and the mark is older than the period. The API
// server refuses a use of a marked token but records it, which delays the deletion. A user
// who removes the label can use the token again.
//
// Uses and marks are recorded by day, in UTC. One on the day on which the period begins
// counts as within the period.
//
// An annotation of a Secret or its namespace can set another period, which also applies if the
// ServiceAccount does not refer to the Secret (sakeeper.io/clean-up-unused), or can keep the
// Secret (sakeeper.io/keep). If its value is invalid the Secret is left alone, and an event
// reports it.
//
// # Writes
//
// Marking is one JSON merge patch and deleting one DELETE, both with the UID and the
// resourceVersion of the decision. The API server records the first use of a day on the
// Secret, so a use after the decision makes the write fail, and the next pass decides anew.
//
// A deletion does not depend on a cache that may be cut off from the API server: before it, the
// namespace and the ServiceAccount are read live and the rules are applied once more, and the Secret
// is protected by its resourceVersion. A mark may be wrong by what a cache lags; a user can remove it.
//
// Before a Secret with a generated name is deleted, a patch of the same kind sets the date as
// an annotation of its ServiceAccount, so that token generation makes no new Secret, even if
// it is switched on later.
//
// At most one request is under way at a time. A namespace in which a request failed is
// retried without end, with a growing delay.
//
// RBAC: secrets list, watch, patch, delete; serviceaccounts list, watch, patch;
// namespaces list, watch; pods list; get of that one ConfigMap; events create, patch.
//
// It replaces legacy-serviceaccount-token-cleaner-controller of kube-controller-manager.
package tokencleaner
