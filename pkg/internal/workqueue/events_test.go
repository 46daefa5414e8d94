package workqueue

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/sakeeper/sakeeper/pkg/testkit"
)

func TestEvents(t *testing.T) {
	first := testkit.Namespace("first")
	updated := testkit.Namespace("updated")
	reborn := testkit.Namespace("reborn", testkit.WithUID(testkit.OtherUID))
	always := func(_, _ *corev1.Namespace) bool { return true }
	never := func(_, _ *corev1.Namespace) bool { return false }

	cases := map[string]struct {
		inIgnore   func(old, updated *corev1.Namespace) bool
		inListed   bool // there is such a mapper
		inVanished bool // there is such a mapper
		in         func(toolscache.TypedResourceEventHandler[*corev1.Namespace])
		want       []string
	}{
		"an addition is a change": {
			in:   func(h toolscache.TypedResourceEventHandler[*corev1.Namespace]) { h.OnAdd(first, false) },
			want: []string{"changed first"},
		},
		"so is an object of the initial list": {
			in:   func(h toolscache.TypedResourceEventHandler[*corev1.Namespace]) { h.OnAdd(first, true) },
			want: []string{"changed first"},
		},
		"which may have a mapper of its own": {
			inListed: true,
			in: func(h toolscache.TypedResourceEventHandler[*corev1.Namespace]) {
				h.OnAdd(first, true)
				h.OnAdd(updated, false)
				h.OnUpdate(first, updated)
				h.OnUpdate(first, reborn)
			},
			want: []string{"listed first", "changed updated", "changed updated", "deleted first", "changed reborn"},
		},
		"and an update, with its new state": {
			in:   func(h toolscache.TypedResourceEventHandler[*corev1.Namespace]) { h.OnUpdate(first, updated) },
			want: []string{"changed updated"},
		},
		"an update that cannot matter is ignored": {
			inIgnore: always,
			in:       func(h toolscache.TypedResourceEventHandler[*corev1.Namespace]) { h.OnUpdate(first, updated) },
		},
		"an update that may matter is not": {
			inIgnore: never,
			in:       func(h toolscache.TypedResourceEventHandler[*corev1.Namespace]) { h.OnUpdate(first, updated) },
			want:     []string{"changed updated"},
		},
		"another UID is a deletion and an addition, whatever Ignore says": {
			inIgnore: always,
			in:       func(h toolscache.TypedResourceEventHandler[*corev1.Namespace]) { h.OnUpdate(first, reborn) },
			want:     []string{"deleted first", "changed reborn"},
		},
		"a deletion": {
			in: func(h toolscache.TypedResourceEventHandler[*corev1.Namespace]) {
				h.OnDelete(toolscache.DeletedObject[*corev1.Namespace]{OptionalObj: first})
			},
			want: []string{"deleted first"},
		},
		"a tombstone with an object": {
			in: func(h toolscache.TypedResourceEventHandler[*corev1.Namespace]) {
				h.OnDelete(toolscache.DeletedObject[*corev1.Namespace]{
					OptionalObj: first, FinalStateUnknown: &toolscache.DeletedFinalStateUnknown{Key: "first", Obj: first},
				})
			},
			want: []string{"deleted first"},
		},
		"a deletion that was missed may have a mapper of its own": {
			inVanished: true,
			in: func(h toolscache.TypedResourceEventHandler[*corev1.Namespace]) {
				h.OnDelete(toolscache.DeletedObject[*corev1.Namespace]{
					OptionalObj: first, FinalStateUnknown: &toolscache.DeletedFinalStateUnknown{Key: "first", Obj: first},
				})
				h.OnUpdate(updated, reborn)
				h.OnDelete(toolscache.DeletedObject[*corev1.Namespace]{OptionalObj: reborn})
			},
			want: []string{"vanished first", "vanished updated", "changed reborn", "deleted reborn"},
		},
		"a tombstone without one": {
			in: func(h toolscache.TypedResourceEventHandler[*corev1.Namespace]) {
				h.OnDelete(toolscache.DeletedObject[*corev1.Namespace]{FinalStateUnknown: &toolscache.DeletedFinalStateUnknown{Key: "first"}})
			},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			var got []string
			events := Events[*corev1.Namespace]{
				Changed: func(ns *corev1.Namespace) { got = append(got, "changed "+ns.Name) },
				Deleted: func(ns *corev1.Namespace) { got = append(got, "deleted "+ns.Name) },
				Ignore:  tc.inIgnore,
			}
			if tc.inListed {
				events.Listed = func(ns *corev1.Namespace) { got = append(got, "listed "+ns.Name) }
			}
			if tc.inVanished {
				events.Vanished = func(ns *corev1.Namespace) { got = append(got, "vanished "+ns.Name) }
			}
			tc.in(events)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
		t.Run(name+", without a handler", func(*testing.T) {
			tc.in(Events[*corev1.Namespace]{Ignore: tc.inIgnore}) // must not panic
		})
	}
}

// TestWatch goes through a real informer: the initial list is delivered before
// the checker is done, and a deletion that only a new list tells of arrives.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lists := [][]corev1.Namespace{{*testkit.Namespace("a"), *testkit.Namespace("b")}, {*testkit.Namespace("a")}}
		watches := make(chan *watch.FakeWatcher, len(lists))
		source := &toolscache.ListWatch{
			ListWithContextFunc: func(context.Context, metav1.ListOptions) (runtime.Object, error) {
				list := &corev1.NamespaceList{Items: lists[0]}
				lists = lists[1:]
				return list, nil
			},
			WatchFuncWithContext: func(context.Context, metav1.ListOptions) (watch.Interface, error) {
				w := watch.NewFake()
				watches <- w
				return w, nil
			},
		}
		informer := toolscache.NewTypedSharedIndexInformer[*corev1.Namespace](
			toolscache.NewSharedIndexInformer(toolscache.ToListWatcherWithWatchListSemantics(source, noWatchList{}), &corev1.Namespace{}, 0, nil))

		var got []string
		checker, err := Watch(informer, Events[*corev1.Namespace]{
			Changed: func(ns *corev1.Namespace) { got = append(got, "changed "+ns.Name) },
			Deleted: func(ns *corev1.Namespace) { got = append(got, "deleted "+ns.Name) },
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			informer.RunWithContext(ctx)
			close(ended)
		}()

		<-checker.Done()
		if len(got) != 2 {
			t.Errorf("done after %v", got)
		}
		w := <-watches
		w.Error(&metav1.Status{Status: metav1.StatusFailure, Reason: metav1.StatusReasonExpired, Code: 410}) // makes it list again
		<-watches
		synctest.Wait()
		if want := "deleted b"; len(got) < 3 || got[2] != want {
			t.Errorf("got %v, want %q after the second list", got, want)
		}
		cancel()
		<-ended
	})
}

type noWatchList struct{}

func (noWatchList) IsWatchListSemanticsUnSupported() bool { return true }
