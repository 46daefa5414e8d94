package serviceaccount

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestDecide(t *testing.T) {
	cases := map[string]struct {
		in         state
		want       action
		wantReason string
	}{
		"no such namespace": {
			in: state{}, want: none, wantReason: "namespace does not exist",
		},
		"no such namespace, but an account": {
			in: state{exists: true}, want: none, wantReason: "namespace does not exist",
		},
		"a terminating namespace": {
			in: state{phase: corev1.NamespaceTerminating}, want: none, wantReason: "namespace is not active",
		},
		"an unknown phase": {
			in: state{phase: "Paused"}, want: none, wantReason: "namespace is not active",
		},
		"an account that exists": {
			in: state{phase: corev1.NamespaceActive, exists: true}, want: none, wantReason: "service account exists",
		},
		"an account that is missing": {
			in: state{phase: corev1.NamespaceActive}, want: create, wantReason: "service account is missing",
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got, reason := decide(tc.in); got != tc.want || reason != tc.wantReason {
				t.Errorf("got %d, %q; want %d, %q", got, reason, tc.want, tc.wantReason)
			}
		})
	}
}
