// Package serviceaccount keeps true that every active namespace has its
// ServiceAccounts: by default the one named "default".
//
// Inputs: namespaces and ServiceAccounts, watched. Writes: one CREATE per missing
// ServiceAccount, nothing else; an existing one is never changed, whatever it
// holds. A namespace that is not active is left alone, and a refusal because it
// is on its way out is not retried.
//
// RBAC: manifests/components/in-tree-controllers/serviceaccount.yaml.
//
// The floor is serviceaccount-controller of kube-controller-manager.
package serviceaccount
