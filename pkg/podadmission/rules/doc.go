// Package rules has the ServiceAccount rules for pods.
//
// It keeps true that a pod comes out exactly as with the admission plugin
// ServiceAccount of kube-apiserver: with the same account, volume, mounts and pull
// secrets, or refused with the same words and code.
//
// The rules are pure: no client, no HTTP, no clock. Whoever answers a request to
// create a pod calls, in this order,
//
//   - [Default];
//   - [NeedsAccount]: look the ServiceAccount up; [LookupFailed] is the refusal where
//     there is none;
//   - with [SecretTokens], [NeedsToken]: look the token Secret up ([IsToken]);
//   - [Mutate], unless pods are only validated;
//   - [Validate].
//
// Whoever answers a request to update the ephemeral containers of a pod calls
// [ValidateEphemeralContainers] alone, with the ServiceAccount that [AccountName]
// names. No other request for pods has a rule.
//
// [Default] and [Mutate] change nothing in a pod that they, or the plugin, have
// treated.
package rules
