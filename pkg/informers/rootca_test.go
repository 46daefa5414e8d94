package informers

import (
	"crypto/sha256"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/sakeeper/sakeeper/pkg/testkit"
)

func TestNewRootCA(t *testing.T) {
	cases := map[string]struct {
		in   *corev1.ConfigMap
		want RootCA // less its ObjectMeta
	}{
		"one that is right": {
			in:   testkit.ConfigMap("team/"+RootCAName, testkit.WithData("ca.crt", "a CA"), testkit.WithAnnotation(DescriptionAnnotation, "for people")),
			want: RootCA{HasCA: true, CASum: sha256.Sum256([]byte("a CA")), Described: true},
		},
		"an empty one": {
			in:   testkit.ConfigMap("team/" + RootCAName),
			want: RootCA{CASum: sha256.Sum256(nil)},
		},
		"an empty CA and an empty description": {
			in:   testkit.ConfigMap("team/"+RootCAName, testkit.WithData("ca.crt", ""), testkit.WithAnnotation(DescriptionAnnotation, "")),
			want: RootCA{HasCA: true, CASum: sha256.Sum256(nil)},
		},
		"other keys, in order": {
			in:   testkit.ConfigMap("team/"+RootCAName, testkit.WithData("z", "1"), testkit.WithData("ca.crt", "a CA"), testkit.WithData("a", "2")),
			want: RootCA{HasCA: true, CASum: sha256.Sum256([]byte("a CA")), OtherKeys: []string{"a", "z"}},
		},
		"labels and a deletion in progress": {
			in:   testkit.ConfigMap("team/"+RootCAName, testkit.WithLabel("app", "ci"), testkit.Deleting(), testkit.WithManagedFields()),
			want: RootCA{CASum: sha256.Sum256(nil)},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			tc.want.ObjectMeta = reducedMeta(tc.in)
			got := NewRootCA(tc.in)
			if diff := cmp.Diff(&tc.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if holds(reflect.ValueOf(got), "a CA") {
				t.Error("the CA itself is kept")
			}
		})
	}
}
