package fakeapi

import (
	"errors"
	"strconv"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	clienttesting "k8s.io/client-go/testing"
)

// firstRevision is before the resourceVersion of the first change, and after those of the objects
// that [New] gets.
const firstRevision = 1000

// tracker adds UIDs, versions and preconditions to client-go's tracker.
type tracker struct {
	clienttesting.ObjectTracker

	mu       sync.Mutex
	revision int
	changed  func(before, after runtime.Object)
}

func newTracker() *tracker {
	return &tracker{ObjectTracker: clienttesting.NewObjectTracker(scheme.Scheme, codecs()), revision: firstRevision}
}

// Create implements [clienttesting.ObjectTracker].
func (t *tracker) Create(gvr schema.GroupVersionResource, obj runtime.Object, ns string, opts ...metav1.CreateOptions) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	obj = obj.DeepCopyObject()
	created := accessor(obj)
	if _, err := t.Get(gvr, ns, created.GetName()); err == nil {
		return apierrors.NewAlreadyExists(gvr.GroupResource(), created.GetName())
	}
	if dryRun(opts, func(o metav1.CreateOptions) []string { return o.DryRun }) {
		return nil
	}
	t.version(created)
	if created.GetUID() == "" {
		created.SetUID(types.UID("uid-" + created.GetResourceVersion()))
	}
	return t.store(nil, obj, t.ObjectTracker.Create(gvr, obj, ns))
}

// Update implements [clienttesting.ObjectTracker].
func (t *tracker) Update(gvr schema.GroupVersionResource, obj runtime.Object, ns string, opts ...metav1.UpdateOptions) error {
	return t.replace(gvr, obj, ns, dryRun(opts, func(o metav1.UpdateOptions) []string { return o.DryRun }))
}

// Patch implements [clienttesting.ObjectTracker]: obj is the patched object.
func (t *tracker) Patch(gvr schema.GroupVersionResource, obj runtime.Object, ns string, opts ...metav1.PatchOptions) error {
	return t.replace(gvr, obj, ns, dryRun(opts, func(o metav1.PatchOptions) []string { return o.DryRun }))
}

// Apply implements [clienttesting.ObjectTracker].
func (t *tracker) Apply(schema.GroupVersionResource, runtime.Object, string, ...metav1.PatchOptions) error {
	return errors.New("fakeapi: server-side apply needs a real API server")
}

// replace sets the version in obj, which the response to the request has too.
func (t *tracker) replace(gvr schema.GroupVersionResource, obj runtime.Object, ns string, dryRun bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	updated := accessor(obj)
	before, err := t.Get(gvr, ns, updated.GetName())
	if err != nil {
		return err
	}
	uid, version := updated.GetUID(), updated.GetResourceVersion()
	if err := precondition(gvr, accessor(before), &uid, &version); err != nil || dryRun {
		return err
	}
	updated.SetUID(accessor(before).GetUID())
	t.version(updated)
	return t.store(before, obj, t.ObjectTracker.Update(gvr, obj, ns))
}

// Delete implements [clienttesting.ObjectTracker].
func (t *tracker) Delete(gvr schema.GroupVersionResource, ns, name string, opts ...metav1.DeleteOptions) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	before, err := t.Get(gvr, ns, name)
	if err != nil {
		return err
	}
	for _, o := range opts {
		if p := o.Preconditions; p != nil {
			if err := precondition(gvr, accessor(before), p.UID, p.ResourceVersion); err != nil {
				return err
			}
		}
	}
	t.revision++
	return t.store(before, nil, t.ObjectTracker.Delete(gvr, ns, name))
}

// set creates or replaces an object without preconditions.
func (t *tracker) set(gvr schema.GroupVersionResource, obj runtime.Object, ns string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	changed := accessor(obj)
	before, err := t.Get(gvr, ns, changed.GetName())
	t.version(changed)
	if err != nil {
		return t.store(nil, obj, t.ObjectTracker.Create(gvr, obj, ns))
	}
	return t.store(before, obj, t.ObjectTracker.Update(gvr, obj, ns))
}

// version gives an object the next version. The caller holds t.mu.
func (t *tracker) version(obj metav1.Object) {
	t.revision++
	obj.SetResourceVersion(strconv.Itoa(t.revision))
}

// store reports a change unless err, which it returns, says that there was none. The caller holds
// t.mu.
func (t *tracker) store(before, after runtime.Object, err error) error {
	if err == nil && t.changed != nil {
		if after != nil {
			after = after.DeepCopyObject()
		}
		t.changed(before, after)
	}
	return err
}

// precondition returns a conflict if an object has another UID or version. Empty ones are none.
func precondition(gvr schema.GroupVersionResource, obj metav1.Object, uid *types.UID, version *string) error {
	switch {
	case uid != nil && *uid != "" && *uid != obj.GetUID():
		return apierrors.NewConflict(gvr.GroupResource(), obj.GetName(), errors.New("the UID in the precondition differs"))
	case version != nil && *version != "" && *version != obj.GetResourceVersion():
		return apierrors.NewConflict(gvr.GroupResource(), obj.GetName(), errors.New("the object has been modified"))
	}
	return nil
}

func dryRun[T any](opts []T, of func(T) []string) bool {
	return len(opts) > 0 && len(of(opts[0])) > 0
}

func accessor(obj runtime.Object) metav1.Object {
	o, err := meta.Accessor(obj)
	if err != nil {
		panic("fakeapi: internal error: " + err.Error()) // every object has metadata
	}
	return o
}
