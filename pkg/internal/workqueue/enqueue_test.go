package workqueue

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/sakeeper/sakeeper/pkg/testkit"
)

func TestEnqueueAll(t *testing.T) {
	const interval = time.Second / enqueuedPerSecond
	cases := map[string]struct {
		in   int
		want []time.Duration // the delays that are not zero
	}{
		"an empty cache":                {in: 0},
		"one object":                    {in: 1},
		"as many as are queued at once": {in: enqueuedAtOnce},
		"more":                          {in: enqueuedAtOnce + 3, want: []time.Duration{interval, 2 * interval, 3 * interval}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			informer := toolscache.NewTypedSharedIndexInformer[*corev1.Namespace](
				toolscache.NewSharedIndexInformer(&toolscache.ListWatch{}, &corev1.Namespace{}, 0, nil))
			for i := range tc.in {
				if err := informer.GetStore().Add(testkit.Namespace(fmt.Sprint("team", i))); err != nil {
					t.Fatal(err)
				}
			}
			seen := map[string]bool{}
			var delays []time.Duration
			EnqueueAll(informer, func(ns *corev1.Namespace, delay time.Duration) {
				seen[ns.Name] = true
				delays = append(delays, delay)
			})
			slices.Sort(delays)
			want := append(make([]time.Duration, min(tc.in, enqueuedAtOnce)), tc.want...)
			if diff := cmp.Diff(want, delays, cmpopts.EquateEmpty()); diff != "" || len(seen) != tc.in {
				t.Errorf("%d objects, delays (-want +got):\n%s", len(seen), diff)
			}
		})
	}
}
