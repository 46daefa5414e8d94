// Package serviceaccount creates the ServiceAccounts that every active namespace must have:
// by default the one named "default".
//
// Inputs: namespaces and ServiceAccounts, watched. Writes: one CREATE per missing
// ServiceAccount. An existing one is never changed, whatever it contains. The controller
// does nothing in a namespace that is not active, and does not retry a create that the API
// server refuses because the namespace is terminating.
//
// The caches may lag without harm: nothing is deleted, and a ServiceAccount that exists already makes
// the create fail. A minute after a create, a ServiceAccount that the cache does not have is created
// again: it may have been deleted while the watch was broken.
//
// RBAC: manifests/rbac/serviceaccount-controller.
//
// It replaces serviceaccount-controller of kube-controller-manager.
package serviceaccount
