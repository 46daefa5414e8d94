// Package fakeapi is an API server for unit tests: client-go's fake clientset, and what it lacks.
//
//   - Objects get a UID when they are created, and a new resourceVersion with every change.
//   - The uid and the resourceVersion in an update, a merge patch or the preconditions of a delete
//     must be those of the object, or the request is a conflict.
//   - A dry run of a create, an update or a patch changes nothing.
//   - Lists and watches obey field selectors for metadata.name, metadata.namespace and the type of
//     a Secret. A watch does not notice that an object begins or ceases to match.
//   - A metadata client sees the same objects.
//   - Tests replace the responses to requests, see every change, and make changes as other clients
//     do, without a request.
//
// There is no validation, no defaulting, no server-side apply, and no managedFields, which
// make client-go's own NewClientset ten times slower. What depends on those belongs into a test with
// pkg/testkit/controlplane.
package fakeapi

import (
	"sync"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
	metadatafake "k8s.io/client-go/metadata/fake"
	clienttesting "k8s.io/client-go/testing"
)

// Server is a fake API server and its typed client. It is safe for concurrent use. Reactors are
// prepended, if at all, before the first request.
type Server struct {
	*fake.Clientset

	// Metadata is a metadata client of the same server.
	Metadata *metadatafake.FakeMetadataClient

	tracker *tracker

	mu       sync.Mutex
	inject   func(clienttesting.Action) *Fault
	requests []clienttesting.Action
}

// Fault is the response to a request in the place of its result.
type Fault struct {
	Err error
	// CarriedOut is true if the request has its effect nevertheless.
	CarriedOut bool
}

// New returns a server with objects, which keep their UIDs and versions. The first change gets the
// resourceVersion 1001, and an object that it creates the UID uid-1001.
func New(objects ...runtime.Object) *Server {
	s := &Server{Clientset: &fake.Clientset{}, Metadata: &metadatafake.FakeMetadataClient{}, tracker: newTracker()}
	for _, obj := range objects {
		if err := s.tracker.Add(obj); err != nil {
			panic("fakeapi: internal error: " + err.Error()) // clientset has no such kind
		}
	}
	s.AddReactor("*", "*", func(action clienttesting.Action) (bool, runtime.Object, error) {
		obj, err := s.serve(action)
		return true, obj, err
	})
	s.AddWatchReactor("*", func(action clienttesting.Action) (bool, watch.Interface, error) {
		w, err := s.watch(action.(clienttesting.WatchActionImpl))
		return true, w, err
	})
	s.Metadata.AddReactor("*", "*", func(action clienttesting.Action) (bool, runtime.Object, error) {
		obj, err := s.serveMetadata(action)
		return true, obj, err
	})
	return s
}

// Tracker holds the objects. It replaces that of [fake.Clientset].
func (s *Server) Tracker() clienttesting.ObjectTracker { return s.tracker }

// Inject makes the server ask fault about every request from now on. If fault returns nil, the
// request is carried out. A nil fault ends that.
func (s *Server) Inject(fault func(clienttesting.Action) *Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inject = fault
}

// Errors are errors by request, "<verb> <resource>" or "<verb> <resource>/<subresource>".
type Errors map[string]error

// Fault is an argument of [Server.Inject]: the request is not carried out.
func (e Errors) Fault(action clienttesting.Action) *Fault {
	request := action.GetVerb() + " " + action.GetResource().Resource
	if sub := action.GetSubresource(); sub != "" {
		request += "/" + sub
	}
	if err, ok := e[request]; ok {
		return &Fault{Err: err}
	}
	return nil
}

// OnChange makes the server call changed with every change of an object, one at a time. before or
// after is nil if the object did not exist, or does not any more. changed must not change them. It
// may call [Get] and [List], and nothing else of the server.
func (s *Server) OnChange(changed func(before, after runtime.Object)) {
	s.tracker.mu.Lock()
	defer s.tracker.mu.Unlock()
	s.tracker.changed = changed
}

// Requests returns the requests of both clients since the last call, in their order, without watches.
func (s *Server) Requests() []clienttesting.Action {
	s.mu.Lock()
	defer s.mu.Unlock()
	requests := s.requests
	s.requests = nil
	return requests
}

func (s *Server) serve(action clienttesting.Action) (runtime.Object, error) {
	s.mu.Lock()
	s.requests = append(s.requests, action.DeepCopy())
	inject := s.inject
	s.mu.Unlock()
	var fault *Fault
	if inject != nil {
		fault = inject(action)
	}
	if fault != nil && !fault.CarriedOut {
		return nil, fault.Err
	}
	obj, err := s.carryOut(action)
	if fault != nil {
		return nil, fault.Err
	}
	return obj, err
}

func (s *Server) carryOut(action clienttesting.Action) (runtime.Object, error) {
	_, obj, err := clienttesting.ObjectReaction(s.tracker)(action)
	if list, ok := action.(clienttesting.ListActionImpl); ok && err == nil {
		return selected(obj, list.ListRestrictions.Fields)
	}
	return obj, err
}

func (s *Server) watch(action clienttesting.WatchActionImpl) (watch.Interface, error) {
	w, err := s.tracker.Watch(action.GetResource(), action.GetNamespace(), action.ListOptions)
	if err != nil {
		return nil, err
	}
	return newSelectedWatch(w, action.WatchRestrictions.Fields), nil
}

// serveMetadata serves a request of the metadata client, whose actions do not have a kind.
func (s *Server) serveMetadata(action clienttesting.Action) (runtime.Object, error) {
	if list, ok := action.(clienttesting.ListActionImpl); ok {
		kind, err := kinds().KindFor(action.GetResource())
		if err != nil {
			return nil, err
		}
		list.Kind = kind
		action = list
	}
	obj, err := s.serve(action)
	if err != nil || obj == nil {
		return nil, err
	}
	return metadataOf(obj)
}

// codecs decode the patches that the tracker gets.
func codecs() runtime.Decoder { return scheme.Codecs.UniversalDecoder() }
