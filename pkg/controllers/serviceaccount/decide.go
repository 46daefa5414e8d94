package serviceaccount

import corev1 "k8s.io/api/core/v1"

// state is the cached state of one ServiceAccount that should exist.
type state struct {
	// phase is that of the namespace, empty if the namespace does not exist.
	phase corev1.NamespacePhase
	// exists is true for every existing ServiceAccount, also one that is being deleted.
	exists bool
}

type action int

const (
	none action = iota
	create
)

func decide(s state) (action, string) {
	switch {
	case s.phase == "":
		return none, "namespace does not exist"
	case s.phase != corev1.NamespaceActive:
		return none, "namespace is not active"
	case s.exists:
		return none, "service account exists"
	default:
		return create, "service account is missing"
	}
}
