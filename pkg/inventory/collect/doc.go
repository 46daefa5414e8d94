// Package collect reads from an API server what package inventory needs. It writes nothing.
//
// Lists are read in chunks, and each object is reduced before the next chunk is read. What may not
// be read, or could not be read to the end, is in [Result.Missing], and the reader of the findings
// is told that it is unknown.
//
// It needs these rights: list of serviceaccounts, pods and secrets in the namespaces that are asked
// for, of replicasets and jobs there if they own pods, of roles, clusterroles, rolebindings and
// clusterrolebindings in the whole cluster; get of the URL /openid/v1/jwks, and of the ConfigMap
// kube-system/kube-apiserver-legacy-service-account-token-tracking.
package collect
