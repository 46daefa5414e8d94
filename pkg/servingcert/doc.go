// Package servingcert keeps true that the webhook serves a certificate which its API
// servers trust.
//
// [Controller] keeps a CA and a serving certificate in a Secret that all replicas
// share, and the CAs to trust in the caBundle of the webhook configurations. Where
// somebody else keeps a certificate, pkg/webhook/certfiles is used instead.
//
// It keeps true:
//
//   - All replicas serve what is in the Secret. It is updated only as it was read, so of
//     several that want to change it one does, and the others follow.
//   - A CA is in the bundle of every configuration for ten minutes before anything is
//     signed with it, and stays in it until it has expired, which is when nothing that
//     it signed can be served any more. Its private key is forgotten when the next CA
//     takes over.
//   - A serving certificate is renewed in the last third of its life, and when it
//     lacks a host of [Config]; a CA is replaced in the last third of its own. One
//     that has expired is replaced at once.
//   - The bundle is a function of the Secret alone, and is written where it differs:
//     only to webhooks that call one of the hosts, only in the two named
//     configurations, never from a Secret that has changed meanwhile.
//   - While configurations still trust another certificate only, that one goes on
//     being served, as long as this process has it.
//   - A Secret or a configuration that does not exist is waited for, and not created: a
//     right to create this Secret would be one to create any.
//
// What is in the Secret follows one rule. A Secret of type [SecretType] is the
// webhook's own: whatever of it cannot be used, because it is missing, damaged,
// expired or not valid yet, is made anew, and what other keys hold is left alone. A
// Secret of another type is somebody else's: it is not touched, and the webhook is not
// ready and says so. The manifests have an empty one, without the field data, so that to
// apply them again changes nothing in it.
//
// A CA that may be known to others is replaced by emptying the data of the Secret, or by
// deleting it and applying the manifests again: a new CA takes over at once, and calls
// are refused until the API servers have seen it. While there is no Secret, what is
// served goes on being served, and the webhook stays ready as long as that is trusted.
//
// Somebody who keeps changing a bundle does not get his way for an hour, as with other
// objects (pkg/contention): while a bundle is wrong, every request that the webhook is
// asked about fails. What is undone five times is written once a minute instead.
//
// Time is that of the API server, which is asked for before anything is written: a clock
// that is far ahead would take a CA for expired and throw it away. A process whose clock is
// still behind what the API server wrote makes no certificates.
//
// Inputs: the Secret and the two configurations, watched by name. Writes: one UPDATE
// of the Secret per change, and one strategic merge patch with UID and
// resourceVersion per wrong configuration, after a GET of the Secret.
//
// No library does this: cert-controller of open-policy-agent and the authority of
// cert-manager replace a CA in one step, without an overlap, and those of knative and
// open-policy-agent need a manager or reconciler framework around them.
package servingcert
