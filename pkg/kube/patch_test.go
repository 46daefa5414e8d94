package kube

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestMergePatch(t *testing.T) {
	target := &metav1.ObjectMeta{Name: "s", UID: "u", ResourceVersion: "7", Labels: map[string]string{"mine": "stays"}}
	cases := map[string]struct {
		in   map[string]any
		want string
	}{
		"nothing": {want: `{"metadata":{"resourceVersion":"7","uid":"u"}}`},
		"a field": {in: map[string]any{"data": map[string][]byte{"token": []byte("x")}}, want: `{"data":{"token":"eA=="},"metadata":{"resourceVersion":"7","uid":"u"}}`},
		"metadata too": {
			in:   map[string]any{"metadata": map[string]any{"labels": map[string]any{"a": nil}}},
			want: `{"metadata":{"labels":{"a":null},"resourceVersion":"7","uid":"u"}}`,
		},
		"preconditions are not overruled": {
			in:   map[string]any{"metadata": map[string]any{"uid": "another", "resourceVersion": ""}},
			want: `{"metadata":{"resourceVersion":"7","uid":"u"}}`,
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			for range 2 { // the second finds change as it was
				got, err := MergePatch(target, tc.in)
				if err != nil || string(got) != tc.want {
					t.Errorf("got %s, error %v", got, err)
				}
			}
		})
	}
}
