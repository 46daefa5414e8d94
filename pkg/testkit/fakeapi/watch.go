package fakeapi

import (
	"sync"

	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
)

// selectedWatch has the events of a watch about the objects that a selector matches. Unlike
// [watch.Filter], it ends when it is stopped, even if an event was not received.
type selectedWatch struct {
	watch.Interface

	result  chan watch.Event
	stop    sync.Once
	stopped chan struct{}
}

func newSelectedWatch(from watch.Interface, selector fields.Selector) *selectedWatch {
	w := &selectedWatch{Interface: from, result: make(chan watch.Event), stopped: make(chan struct{})}
	go w.run(selector)
	return w
}

func (w *selectedWatch) run(selector fields.Selector) {
	defer close(w.result)
	for event := range w.Interface.ResultChan() {
		if !matches(event.Object, selector) {
			continue
		}
		select {
		case w.result <- event:
		case <-w.stopped:
			return
		}
	}
}

// ResultChan implements [watch.Interface].
func (w *selectedWatch) ResultChan() <-chan watch.Event { return w.result }

// Stop implements [watch.Interface].
func (w *selectedWatch) Stop() {
	w.stop.Do(func() {
		close(w.stopped)
		w.Interface.Stop()
	})
}
