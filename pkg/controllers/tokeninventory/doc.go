// Package tokeninventory counts the tokens in Secrets by what a thief could do with them, as
// "kubectl sakeeper tokens -A" does, in the metric sakeeper_long_lived_tokens{kind,verdict,reach}.
//
// A pass begins at the start and after every interval. It reads token Secrets, managed Secrets,
// ServiceAccounts, pods and RBAC objects in chunks of 500, from the API server and not from a cache,
// and keeps of each what the verdicts need and no token. One pass runs at a time.
//
// # What could not be read
//
// A count is never too low for lack of a right. If not all Secrets could be read, there is no count
// at all, and if not all RBAC objects could, the reach of tokens is "unknown" unless what could be
// read makes it cluster-admin. If accounts, pods, published keys or the date since which uses are
// recorded are not known, the verdict of tokens that are not known to be dead is "unknown".
//
// What could not be read is an error of the pass, which is logged and retried with a growing delay.
// If that is not for lack of a right (the API server went away), the counts of the last pass stay.
// There is no retry if the API server does not publish its keys.
//
// RBAC: list of secrets, serviceaccounts, pods, roles, rolebindings, clusterroles and
// clusterrolebindings; get of /openid/v1/jwks and of the ConfigMap
// kube-system/kube-apiserver-legacy-service-account-token-tracking. The controller writes nothing.
package tokeninventory
