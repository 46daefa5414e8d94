package workqueue

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	clientqueue "k8s.io/client-go/util/workqueue"
)

func TestReadyWhenEveryInitialKeyWasHandledOnce(t *testing.T) {
	cases := map[string]struct {
		inKeys    map[string]time.Duration // how long each takes
		inFails   string                   // the key that fails every time
		inWorkers int
		want      time.Duration
	}{
		"no keys": {
			inWorkers: 2, want: 0,
		},
		"one worker": {
			inKeys: map[string]time.Duration{"a": time.Second, "b": time.Second, "c": time.Second}, inWorkers: 1, want: 3 * time.Second,
		},
		"several workers": {
			inKeys: map[string]time.Duration{"a": time.Second, "b": time.Second, "c": time.Second}, inWorkers: 3, want: time.Second,
		},
		"one key still runs when all others and the mark are through": {
			inKeys: map[string]time.Duration{"a": 0, "b": time.Minute, "c": 0}, inWorkers: 3, want: time.Minute,
		},
		"more workers than keys": {
			inKeys: map[string]time.Duration{"a": time.Second}, inWorkers: 8, want: time.Second,
		},
		"a key that fails has been handled": {
			inKeys: map[string]time.Duration{"a": time.Second, "b": 0}, inFails: "a", inWorkers: 1, want: time.Second,
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q := newQueue(t, Config[string]{Workers: tc.inWorkers, Sync: func(_ context.Context, key string) (time.Duration, error) {
					time.Sleep(tc.inKeys[key])
					if key == tc.inFails {
						return 0, errBoom
					}
					return 0, nil
				}})
				for key := range tc.inKeys {
					q.Add(key)
				}
				if q.Ready() {
					t.Error("ready before Run")
				}
				defer start(t, q)()
				if tc.want > 0 {
					wait(tc.want - 1)
					if q.Ready() {
						t.Errorf("ready before %v", tc.want)
					}
					wait(1)
				}
				if wait(0); !q.Ready() {
					t.Errorf("not ready after %v", tc.want)
				}
				q.Add("later")
				if !q.Ready() {
					t.Error("not ready while a later key is queued")
				}
				wait(time.Hour)
				if !q.Ready() {
					t.Error("did not stay ready")
				}
			})
		})
	}
}

// TestNotReadyWhileAWorkerHasTakenItsKey stops the first worker after it has taken the last
// initial key out of the queue and before it has marked it. Without the delay this happens once
// in some 50,000 starts.
func TestNotReadyWhileAWorkerHasTakenItsKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var handled atomic.Bool
		q := newQueue(t, Config[string]{Workers: 2, Sync: func(context.Context, string) (time.Duration, error) {
			handled.Store(true)
			return 0, nil
		}})
		q.queue = slow(q.queue)
		q.Add("key")
		defer start(t, q)()
		wait(time.Millisecond)
		if q.Ready() && !handled.Load() {
			t.Error("ready, and the initial key was not handled")
		}
		wait(time.Hour)
		if !q.Ready() || !handled.Load() {
			t.Errorf("after an hour: ready %t, handled %t", q.Ready(), handled.Load())
		}
	})
}

type slowQueue[T comparable] struct {
	clientqueue.TypedRateLimitingInterface[T]
	first chan struct{}
}

func slow[T comparable](queue clientqueue.TypedRateLimitingInterface[T]) clientqueue.TypedRateLimitingInterface[T] {
	first := make(chan struct{}, 1)
	first <- struct{}{}
	return slowQueue[T]{queue, first}
}

// Get takes a minute to return with the first item.
func (q slowQueue[T]) Get() (T, bool) {
	it, shutdown := q.TypedRateLimitingInterface.Get()
	select {
	case <-q.first:
		time.Sleep(time.Minute)
	default:
	}
	return it, shutdown
}
