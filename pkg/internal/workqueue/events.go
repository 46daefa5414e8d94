package workqueue

import (
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
)

// Object is an object of an informer that [Watch] takes.
type Object interface {
	toolscache.Object
	GetUID() types.UID
}

// Events are the event handlers of one informer. A handler maps an object to keys and adds
// them to a queue; it must not block. Each may be nil.
type Events[T Object] struct {
	// Changed is called for every object of the initial list and for every later
	// addition and update.
	Changed func(T)
	// Listed, if set, is called instead of Changed for the objects of the initial list.
	Listed func(T)
	// Deleted is called with the last known state of every deleted object, also if the
	// informer missed the deletion and found it with the next list or through a new object
	// of the same name.
	Deleted func(T)
	// Vanished, if set, is called instead of Deleted if the informer missed the deletion:
	// the last known state may be old then.
	Vanished func(T)
	// Ignore, if set, returns true for an update that needs no call of Changed.
	Ignore func(old, updated T) bool
}

// Watch registers events with informer. The result is done when the handlers have seen the
// initial list; pass it to [Queue.Run].
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
		// The informer missed the deletion between the two.
		e.deleted(old, false)
		e.OnAdd(updated, false)
		return
	}
	if e.Ignore == nil || !e.Ignore(old, updated) {
		e.OnAdd(updated, false)
	}
}

// OnDelete implements [toolscache.TypedResourceEventHandler].
func (e Events[T]) OnDelete(deleted toolscache.DeletedObject[T]) {
	var none T
	if deleted.OptionalObj != none { // none: the informer never had the object
		e.deleted(deleted.OptionalObj, deleted.FinalStateUnknown == nil)
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
