// Package tokencleaner keeps true that legacy tokens which nobody uses do not stay
// for ever: they are marked, which makes the API server refuse them, and deleted
// when nobody missed them.
//
// Inputs: token Secrets, their ServiceAccounts and namespaces, from caches; the
// ConfigMap kube-apiserver-legacy-service-account-token-tracking, read live once per
// pass; the pods of namespaces in which it depends on them, listed in pages and not
// cached. There is a pass at the start, and one after every interval.
//
// # Rules
//
// The period is the setting of the process. Nothing is done before uses were on
// record for that long, counted from the day after the one on which the API server
// began. A token Secret is marked when all of this holds:
//
//   - it is older than the period,
//   - its last use is, or none is on record,
//   - its ServiceAccount exists and refers to it, as with tokens that were generated
//     before 1.24,
//   - no pod names it, whatever phase the pod is in.
//
// It is deleted when all of it still holds and the mark is older than the period. A
// use is refused by then, but noted, and puts that off; who removes the label can
// use the token again.
//
// Uses and marks are noted by the day, in UTC. One on the day on which the period
// begins counts as within it.
//
// A Secret or its namespace may ask for the same after a time of its own
// (sakeeper.io/clean-up-unused), also if the ServiceAccount does not refer to it, or
// for being left alone (sakeeper.io/keep). What cannot be understood is left alone
// too, and an event says so.
//
// # Writes
//
// Marking is one JSON merge patch and deleting one DELETE, both with the UID and the
// resourceVersion that were judged. So a use in between is safe, because the API
// server notes the first one of a day on the Secret: the write is refused, and the
// next pass judges anew.
//
// A ServiceAccount is told the date before a Secret with a generated name goes, by a
// patch of the same kind, so that it gets no new one, be it today or when somebody
// switches generation on.
//
// There is one request under way at a time. A namespace in which something failed is
// tried again by itself, with a growing delay and without end.
//
// RBAC: secrets list, watch, patch, delete; serviceaccounts list, watch, patch;
// namespaces list, watch; pods list; get of that one ConfigMap; events create, patch.
//
// The floor is legacy-serviceaccount-token-cleaner-controller of
// kube-controller-manager.
package tokencleaner
