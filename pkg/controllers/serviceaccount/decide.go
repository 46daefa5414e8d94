package serviceaccount

import corev1 "k8s.io/api/core/v1"

// state is what is known of one ServiceAccount that should exist.
type state struct {
	// phase is the namespace's, and empty when there is no such namespace.
	phase corev1.NamespacePhase
	// exists tells whether the ServiceAccount is there, in whatever state.
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
