// Package podadmission holds no code: its tests compare sakeeper's webhooks for pods
// (pkg/podadmission) with the ServiceAccount admission plugin of the Kubernetes release
// that this module pins.
//
// Each case is a generated request: a pod, ServiceAccounts, an operation and the
// settings. Both sides decide it as they do behind a real API server: the plugin
// on the internal pod after decoding, defaulting and conversion; sakeeper, asked by
// AdmissionRequests with the v1 pod in JSON that an API server shows to a webhook,
// answers with a JSON patch, which is applied to that JSON. The result is defaulted,
// converted and sent to the validating webhook. The rules in the manifests decide whether a
// webhook is called. sakeeper runs as a separate process, because the two sides need
// different releases of the Kubernetes modules.
//
// They must agree on allowed or not, the status (code, reason, message, details) and
// the whole pod; only the five random characters of a volume's name may differ. What
// one side produced must not be changed by the other. The test also counts which rule
// each case reached, and fails when a rule was never reached.
//
// Three kinds of cases are left out, because no API server has them or in-tree does
// not decide them by a rule:
//
//   - Mirror pods with a volume, projection or variable of several sources. An API
//     server refuses those when it validates the pod, after admission. Until then the
//     plugin looks for Secrets in the first source of an order of its own, sakeeper in
//     all of them: it may refuse with 403 what would be refused with 422.
//   - CREATE of pods/ephemeralcontainers, which the plugin would take for that of a pod.
//     API servers have no such request.
//   - Tokens from Secrets and the scope "all", which in-tree does not have.
//
// Every run has a new seed, which it prints. These variables change that:
//
//	DIFFERENTIAL_SEED   the seed to repeat
//	DIFFERENTIAL_CASES  how many cases (20000)
//	DIFFERENTIAL_CASE   only the case of this number, printed in full
package podadmission
