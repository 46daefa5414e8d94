// Package pullsecretcopy keeps copies of pull secrets in the namespaces that ServiceAccountTemplates
// select.
//
//   - Every active namespace that a template selects has, under the name of each pull secret with
//     copyFrom, a copy of the source: the same type, and the credentials, which are one key of the data.
//     Of several templates, the one with the highest priority decides, among equals the first by name.
//   - Sources are Secrets of type kubernetes.io/dockerconfigjson or kubernetes.io/dockercfg, in the
//     namespaces of the configuration, and no copies themselves.
//   - A copy follows its source, also to another type, for which it is replaced. While the source is
//     missing, the copy stays: a mistake in one namespace must not stop pods in all others.
//   - A copy that no template names any more is deleted, also if that changed while no controller ran:
//     the label says what a copy is. While the selector of a template cannot be parsed, none is deleted.
//   - A Secret without that label, or of another type, is left alone, and the condition CopiesReady of
//     the template names it.
//
// No credential is kept. The caches hold metadata, for which the API server sends no data. A copy is
// right if it notes the UID and resourceVersion of the source, and if its managedFields say that our
// field manager still owns the credentials: a field manager loses a field to any other that changes it.
// So nothing has to be read to know it, and a restart reads no data and writes nothing. The source is
// read when something must be written, once for all writes that are under way, and dropped after them.
// A message of the API server that quotes a part of the credentials is left out of errors.
//
// Inputs: namespaces, templates, and the metadata of sources and copies, all watched.
// Writes: one create per missing copy, one server-side apply with UID and resourceVersion per copy that is
// not right, and a delete with both, after the templates and the namespace were read live. A copy that
// is immutable, or has another type than the source, is deleted and created anew. One server-side
// apply per template that names sources writes the condition CopiesReady, at most once in 10 s; the
// service-account-template-controller writes the others. A JSON merge patch with UID and resourceVersion removes
// the condition when the template names none any more.
//
// RBAC: manifests/rbac/pull-secret-copy-controller, -sources and -copies.
package pullsecretcopy
