package tokenreferences

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/sakeeper/sakeeper/pkg/testkit"
)

func TestDecide(t *testing.T) {
	cases := map[string]struct {
		in   reference
		want decision
	}{
		"a secret that exists":                  {in: reference{account: "robot", name: "mine", cached: true}, want: keep},
		"one that exists again":                 {in: reference{account: "robot", name: "mine", cached: true, deleted: true}, want: keep},
		"one with a generated name that exists": {in: reference{account: "robot", name: "robot-token-x7z9q", cached: true}, want: keep},
		"a deleted one":                         {in: reference{account: "robot", name: "mine", deleted: true}, want: remove},
		"a deleted one with a generated name":   {in: reference{account: "robot", name: "robot-token-x7z9q", deleted: true}, want: remove},
		"a generated name that is not cached":   {in: reference{account: "robot", name: "robot-token-x7z9q"}, want: lookUp},
		"a name of the user that is not cached": {in: reference{account: "robot", name: "mine"}, want: count},
		"no name":                               {in: reference{account: "robot"}, want: keep},
		"a name that no secret can have":        {in: reference{account: "robot", name: "a/b"}, want: keep},
		"a generated name of another account":   {in: reference{account: "robot", name: "default-token-x7z9q"}, want: count},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := decide(tc.in); got != tc.want {
				t.Errorf("got %d, want %d", got, tc.want)
			}
		})
	}
}

func TestWithout(t *testing.T) {
	refs := func(names ...string) []corev1.ObjectReference {
		return testkit.ServiceAccount("team/robot", testkit.WithReferences(names...)).Secrets
	}
	cases := map[string]struct {
		in      []corev1.ObjectReference
		inStale map[string]bool
		want    []corev1.ObjectReference
	}{
		"one goes, the order stays":   {in: refs("c", "a", "b"), inStale: map[string]bool{"a": true}, want: refs("c", "b")},
		"a name that is listed twice": {in: refs("a", "b", "a"), inStale: map[string]bool{"a": true}, want: refs("b")},
		"all go":                      {in: refs("a", "b"), inStale: map[string]bool{"a": true, "b": true}},
		"none goes":                   {in: refs("a"), inStale: map[string]bool{"b": true}, want: refs("a")},
		"other fields stay": {
			in:      []corev1.ObjectReference{{Name: "a"}, {Name: "b", Namespace: "team", UID: testkit.SecretUID}},
			inStale: map[string]bool{"a": true},
			want:    []corev1.ObjectReference{{Name: "b", Namespace: "team", UID: testkit.SecretUID}},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			before := append([]corev1.ObjectReference(nil), tc.in...)
			if diff := cmp.Diff(tc.want, without(tc.in, tc.inStale)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if diff := cmp.Diff(before, tc.in); diff != "" {
				t.Errorf("the input changed:\n%s", diff)
			}
		})
	}
}
