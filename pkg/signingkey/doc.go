// Package signingkey checks that the API server knows the signing key, before a token is signed
// with it, and without a token: it reads the keys that the API server publishes
// (/openid/v1/jwks), at the start, after each change of the key and every five minutes.
//
//   - 200 and the key is among them: tokens are written.
//   - 200 and it is not: no token is written, [Check.Ready] and a Warning event name the key, and
//     they are read again after 50 ms, and then with a delay that doubles up to ten seconds.
//     [Config.Unverified] is for keys that the API server accepts and does not publish.
//   - 404, or 403 for a second (an API server that has just started does not know all roles): it
//     serves no keys, or not to this client. Tokens are written, as kube-controller-manager writes
//     them, and one Warning event says that nothing was checked.
//   - Anything else is no answer: no token is written, and it is asked again as above.
//
// What was read is also what tokens of other keys are verified with ([Check.Known]).
//
// RBAC: get on the path /openid/v1/jwks. The ClusterRole system:service-account-issuer-discovery
// of the API server gives it to all ServiceAccounts, and the roles of the controllers that write
// tokens to all who have these.
package signingkey
