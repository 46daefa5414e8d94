// Package servingcert keeps a serving certificate for a webhook that its API servers trust.
//
// [Controller] keeps a CA and a serving certificate in a Secret that all replicas share, and the
// CAs to trust in the caBundle of the webhook configurations. If another tool makes the
// certificate, use pkg/servingcert/certfiles instead.
//
// It guarantees:
//
//   - All replicas serve the certificate in the Secret. Every update carries the resourceVersion
//     that was read, so if several replicas want to change the Secret, one does, and the others
//     follow.
//   - A CA is in the bundle of every configuration for ten minutes before it signs anything, and
//     stays there until it has expired, when nothing that it signed is valid any more. Its
//     private key is deleted when the next CA takes over.
//   - A serving certificate is renewed in the last third of its life, and when it does not cover
//     a host of [Config]; a CA is replaced in the last third of its own. If one has expired, it
//     is replaced at once.
//   - The bundle depends on the Secret only. It is written where it differs: only to webhooks
//     that call one of the hosts, only in the two named configurations, and never from a Secret
//     that has changed meanwhile.
//   - A configuration without webhooks that has the annotation sakeeper.io/webhooks gets the list in it, with
//     the bundle, once this process has been ready for ten seconds; so an API server never calls
//     what has never run. It gets the list again when it is emptied, or when the annotation
//     changes after it was filled in. What a user wrote in the list is kept.
//   - While configurations trust only another certificate, this process goes on serving that
//     one, if it has it.
//   - A Secret or configuration that does not exist is waited for, not created: the right to
//     create this Secret would be the right to create any Secret.
//
// A Secret of type [SecretType] belongs to the webhook: whatever in it is missing, damaged,
// expired or not valid yet is made anew, and other keys are kept. A Secret of another type is not
// changed; the webhook is then not ready, and a Warning event says why. The manifests contain an
// empty Secret without the field data, so that applying them again keeps the certificates.
//
// To replace a CA whose private key may have leaked, empty the data of the Secret, or delete it
// and apply the manifests again: a new CA takes over at once, and calls fail until the API
// servers have read the new bundle. While there is no Secret, the last certificate is served, and
// the webhook stays ready as long as that is trusted.
//
// What another client keeps changing back is written ever more slowly (pkg/internal/writebackoff),
// with one exception: while a bundle does not trust the certificate that is served, every call of
// the webhook fails, so that it is written at once, up to ten times a second.
//
// Time is that of the API server. Before every write the API server is asked for it: a clock that
// is far ahead would make a valid CA look expired. A process whose clock is still behind the time
// at which the API server wrote the Secret makes no certificates.
//
// Inputs: the Secret and the two configurations, watched by name. Writes: one UPDATE of the
// Secret per change, and one patch with UID and resourceVersion per wrong configuration, after a GET
// of the Secret: a strategic merge patch of bundles, a merge patch of a list that is filled in.
//
// No library does this: cert-controller of open-policy-agent and the authority of cert-manager
// replace a CA in one step, without an overlap, and those of knative and open-policy-agent need a
// manager or reconciler framework around them.
package servingcert
