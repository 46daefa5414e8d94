// Package rules has the ServiceAccount rules for pods.
//
// It guarantees that a pod comes out exactly as with the admission plugin ServiceAccount of
// kube-apiserver: with the same ServiceAccount, volume, mounts and pull secrets, or refused with
// the same message and code.
//
// The rules are pure: no client, no HTTP, no clock. For a request to create a pod, call in this
// order
//
//   - [Default];
//   - if [NeedsAccount], get the ServiceAccount; if that fails, refuse with [LookupFailed];
//   - with [SecretTokens], if [NeedsToken], find the token Secret among those that the
//     ServiceAccount lists ([IsToken]);
//   - [Mutate], unless the webhook only validates;
//   - [Validate].
//
// For a request to update the ephemeral containers of a pod, call [ValidateEphemeralContainers]
// with the ServiceAccount that [AccountName] names. No other request for pods has a rule.
//
// [Default] and [Mutate] change nothing in a pod that they, or the plugin, have changed before.
package rules
