package workqueue

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/sakeeper/sakeeper/pkg/testkit"
)

func TestEnqueueAll(t *testing.T) {
	cases := map[string][]string{
		"an empty cache": nil,
		"one object":     {"a"},
		"every object":   {"a", "b", "c"},
	}
	for name, want := range cases {
		t.Run(name, func(t *testing.T) {
			informer := toolscache.NewTypedSharedIndexInformer[*corev1.Namespace](
				toolscache.NewSharedIndexInformer(&toolscache.ListWatch{}, &corev1.Namespace{}, 0, nil))
			for _, name := range want {
				if err := informer.GetStore().Add(testkit.Namespace(name)); err != nil {
					t.Fatal(err)
				}
			}
			var got []string
			EnqueueAll(informer, func(ns *corev1.Namespace) { got = append(got, ns.Name) })
			slices.Sort(got)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
