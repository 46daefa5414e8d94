// Package podadmission holds no code: its tests compare sakeeper's rules for pods
// (pkg/admission) with the ServiceAccount admission plugin of the Kubernetes
// release that this module pins.
//
// Each case is a generated request: a pod, ServiceAccounts, an operation and the
// settings. Both sides decide it as they do behind a real API server: the plugin
// on the internal pod after decoding, defaulting and conversion; sakeeper on the
// v1 pod that an API server shows to a webhook, and what it changes is defaulted
// and converted again. They must agree on allowed or not, the status (code, reason,
// message, details) and the whole pod; only the five random characters of a
// volume's name may differ. What one side produced must not be changed by the
// other. The test also counts which rule each case reached, and fails when a rule
// was never reached.
//
// Every run has a new seed, which it prints. These variables choose otherwise:
//
//	DIFFERENTIAL_SEED   the seed to repeat
//	DIFFERENTIAL_CASES  how many cases (20000)
//	DIFFERENTIAL_CASE   only the case of this number, printed in full
package podadmission
