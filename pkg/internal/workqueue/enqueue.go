package workqueue

import toolscache "k8s.io/client-go/tools/cache"

// EnqueueAll calls enqueue, a mapper as in [Events], for every object in the cache of
// informer. Controllers use it when an input changed that all objects depend on and that no
// informer watches, such as the root CA.
func EnqueueAll[T Object](informer toolscache.TypedSharedIndexInformer[T], enqueue func(T)) {
	for _, obj := range informer.GetStore().List() {
		if o, ok := obj.(T); ok { // always: the informer is typed
			enqueue(o)
		}
	}
}
