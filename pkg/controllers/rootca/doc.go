// Package rootca publishes the root CA: every active namespace gets a ConfigMap
// kube-root-ca.crt whose data is the CA bundle alone, with an annotation that describes its
// purpose.
//
// Inputs: namespaces and the ConfigMaps of that name, watched, and the CA bundle, which is
// read for each decision; call [Controller.EnqueueAll] when it changed.
// Writes: one CREATE per missing ConfigMap. A wrong one is repaired by one PUT or, if a user
// added something that is not cached, by one JSON merge patch; both carry the UID and
// resourceVersion.
//
// The caches may lag without harm: nothing is deleted, and no token or ServiceAccount is involved. A
// minute after a create, a ConfigMap that the cache does not have is created again: it may have been
// deleted while the watch was broken.
//
// RBAC: manifests/rbac/root-ca-certificate-publisher-controller.
//
// It replaces root-ca-certificate-publisher-controller of kube-controller-manager.
package rootca
