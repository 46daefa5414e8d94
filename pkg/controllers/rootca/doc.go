// Package rootca keeps true that every active namespace has a ConfigMap
// kube-root-ca.crt whose data is the root CA and nothing else, with an annotation
// that says what it is for.
//
// Inputs: namespaces and the ConfigMaps of that name, watched, and the CA bundle,
// asked anew for each decision; call [Controller.EnqueueAll] when it changed.
// Writes: one CREATE per missing ConfigMap; per wrong one, with UID and resourceVersion,
// one PUT, or one JSON merge patch where somebody added what is not cached.
//
// RBAC: manifests/components/in-tree-controllers/rootca.yaml.
//
// The floor is root-ca-certificate-publisher-controller of
// kube-controller-manager.
package rootca
