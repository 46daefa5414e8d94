// Package accounttemplate makes ServiceAccounts look as ServiceAccountTemplates say.
//
//   - A ServiceAccount has the fields of all templates that select it. Of several, the one with the
//     highest priority decides about a field, among equals the first by name; pull secrets are united.
//   - A field that another field manager has set to something else is left alone, and the condition
//     Conflict of the template names it, unless the template says force.
//   - What no template says any more is removed, also if that changed while no controller ran: the
//     managedFields of the ServiceAccount say what was set from templates.
//   - Nothing is done in a namespace that is not active, nor in kube-system, unless the selector of a
//     template names it.
//   - While the selector of a template cannot be parsed, nothing is removed.
//
// Inputs: namespaces, ServiceAccounts and templates, watched.
// Writes: one server-side apply per ServiceAccount that is not right, with the UID, and with the
// resourceVersion if it takes a field from another manager. A missing ServiceAccount, which a
// template with create asks for, is created by an apply too. An apply cannot remove what admission
// had set when the ServiceAccount was created: that takes one JSON merge patch, with the UID and the
// resourceVersion. The status of a template is written by
// one JSON merge patch, at most once in 10 s. Nothing is written to what is right already, nor to
// what was right before a restart.
//
// Where the policy account-templates of pkg/policy has set the fields at the creation, the field manager
// owns them already, and one annotation more, which no template says: the apply gives it back.
//
// The caches may lag without harm: nothing is deleted, and an apply that was decided on an old state
// is refused, or followed by an event that decides anew.
//
// RBAC: manifests/rbac/service-account-template-controller.
package accounttemplate
