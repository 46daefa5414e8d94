// Package token makes and checks service-account tokens: their claims, their
// signatures, nothing that needs a cluster. It knows no Kubernetes client.
//
// A legacy token is the content of a Secret of type
// kubernetes.io/service-account-token. It has no expiry; it is alive as long as
// its Secret holds this very token and its ServiceAccount has the UID it names.
// Whoever needs liveness looks at the cluster; this package answers whose token
// it is and whether a known key signed it.
//
// Tokens are credentials: no error of this package holds a token or a part of one.
package token
