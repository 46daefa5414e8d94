// Package reach computes what a ServiceAccount may do by RBAC, from the RBAC objects alone.
//
// [Policy.Allows] is the decision of the API server's RBAC authorizer: a test compares the two on
// thousands of requests. Aggregated ClusterRoles count as the API server counts them, by the rules
// that kube-controller-manager has written into them.
//
// [Policy.Reach] puts an account into one of a few levels. A right counts as a way to become
// cluster-admin if it is one in every cluster of the default configuration; the tables in reasons.go
// have all of them. A namespace with an account of that level is as dangerous as the account: who
// may run pods in it may run them as that account. kube-system always counts as such a namespace.
//
// Only RBAC is judged. Other authorizers (webhooks, Node), and admission, which may refuse what RBAC
// allows, are not known here.
//
// The package makes no requests. A [Policy] is safe for concurrent use.
package reach
