package rootca

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

func TestDecide(t *testing.T) {
	sum := testkit.Bundle().Sum()
	right := func(change ...func(*cache.RootCA)) *cache.RootCA {
		ca := &cache.RootCA{CASum: sum, HasCA: true, Described: true}
		for _, c := range change {
			c(ca)
		}
		return ca
	}
	cases := map[string]struct {
		inPhase    corev1.NamespacePhase
		inFound    *cache.RootCA
		want       action
		wantReason string
	}{
		"no namespace": {
			want: none, wantReason: "namespace does not exist",
		},
		"a terminating namespace": {
			inPhase: corev1.NamespaceTerminating, want: none, wantReason: "namespace is not active",
		},
		"a missing config map": {
			inPhase: corev1.NamespaceActive, want: create, wantReason: "config map is missing",
		},
		"a correct config map": {
			inPhase: corev1.NamespaceActive, inFound: right(), want: none, wantReason: "config map is right",
		},
		"a config map without a CA": {
			inPhase: corev1.NamespaceActive, inFound: right(func(c *cache.RootCA) { c.HasCA = false }),
			want: repair, wantReason: "ca.crt is missing",
		},
		"a config map with another CA": {
			inPhase: corev1.NamespaceActive, inFound: right(func(c *cache.RootCA) { c.CASum = testkit.OtherBundle().Sum() }),
			want: repair, wantReason: "ca.crt differs",
		},
		"a config map with other keys": {
			inPhase: corev1.NamespaceActive, inFound: right(func(c *cache.RootCA) { c.OtherKeys = []string{"extra"} }),
			want: repair, wantReason: "data has other keys",
		},
		"a config map without a description": {
			inPhase: corev1.NamespaceActive, inFound: right(func(c *cache.RootCA) { c.Described = false }),
			want: repair, wantReason: "description is missing",
		},
		"a wrong config map in a terminating namespace": {
			inPhase: corev1.NamespaceTerminating, inFound: right(func(c *cache.RootCA) { c.CASum = testkit.OtherBundle().Sum() }),
			want: repair, wantReason: "ca.crt differs",
		},
		"a wrong config map whose namespace is not cached yet": {
			inFound: right(func(c *cache.RootCA) { c.HasCA = false }), want: repair, wantReason: "ca.crt is missing",
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got, reason := decide(state{phase: tc.inPhase, found: tc.inFound, sum: sum})
			if got != tc.want || reason != tc.wantReason {
				t.Errorf("got %d, %q; want %d, %q", got, reason, tc.want, tc.wantReason)
			}
		})
	}
}
