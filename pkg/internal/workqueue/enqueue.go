package workqueue

import (
	"time"

	toolscache "k8s.io/client-go/tools/cache"
)

const (
	// enqueuedAtOnce objects are queued without a delay, and the others at enqueuedPerSecond: a
	// thousand at once, and 10,000 in 45 s.
	enqueuedAtOnce    = 1000
	enqueuedPerSecond = 200
)

// EnqueueAll calls enqueueAfter for every object in the cache of informer, with the delay
// after which to queue it. Controllers use it when an input changed that all objects depend
// on and that no informer watches, such as the root CA. The delays spread the work, so that
// an object that has an event is not behind all others in the queue.
func EnqueueAll[T Object](informer toolscache.TypedSharedIndexInformer[T], enqueueAfter func(T, time.Duration)) {
	for i, obj := range informer.GetStore().List() {
		if o, ok := obj.(T); ok { // always: the informer is typed
			enqueueAfter(o, time.Duration(max(0, i-enqueuedAtOnce+1))*time.Second/enqueuedPerSecond)
		}
	}
}
