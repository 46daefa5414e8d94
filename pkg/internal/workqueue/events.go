package workqueue

import (
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
)

// Object is what an informer may hold to be watched here.
type Object interface {
	toolscache.Object
	GetUID() types.UID
}

// Events are the mappers of one informer: they turn an object into keys and do
// nothing else. Each may be nil.
type Events[T Object] struct {
	// Changed is called for every object of the initial list and for every later
	// addition and update.
	Changed func(T)
	// Listed, where set, is called instead of Changed for those of the initial list.
	Listed func(T)
	// Deleted is called with the last known state of every object that went, also
	// when only the next list or a new object of the same name told of it.
	Deleted func(T)
	// Vanished, where set, is called instead of Deleted when the deletion itself was
	// missed: the object is as it was last seen, which may be long before it went.
	Vanished func(T)
	// Ignore, where set, tells that an update cannot matter.
	Ignore func(old, updated T) bool
}

// Watch registers events with informer. The result is done when the initial list
// has been delivered; pass it to [Queue.Run].
func Watch[T Object](informer toolscache.TypedSharedIndexInformer[T], events Events[T]) (toolscache.DoneChecker, error) {
	registration, err := informer.AddTypedEventHandler(events)
	if err != nil {
		return nil, err
	}
	return registration.HasSyncedChecker(), nil
}

// OnAdd implements [toolscache.TypedResourceEventHandler].
func (e Events[T]) OnAdd(obj T, isInInitialList bool) {
	switch {
	case isInInitialList && e.Listed != nil:
		e.Listed(obj)
	case e.Changed != nil:
		e.Changed(obj)
	}
}

// OnUpdate implements [toolscache.TypedResourceEventHandler].
func (e Events[T]) OnUpdate(old, updated T) {
	if old.GetUID() != updated.GetUID() {
		// The informer missed the deletion in between; a controller must not.
		e.deleted(old, false)
		e.OnAdd(updated, false)
		return
	}
	if e.Ignore == nil || !e.Ignore(old, updated) {
		e.OnAdd(updated, false)
	}
}

// OnDelete implements [toolscache.TypedResourceEventHandler].
func (e Events[T]) OnDelete(gone toolscache.DeletedObject[T]) {
	var none T
	if gone.OptionalObj != none { // none: it was never seen, so nothing hangs on it
		e.deleted(gone.OptionalObj, gone.FinalStateUnknown == nil)
	}
}

func (e Events[T]) deleted(obj T, seen bool) {
	switch {
	case !seen && e.Vanished != nil:
		e.Vanished(obj)
	case e.Deleted != nil:
		e.Deleted(obj)
	}
}
