package kube

import (
	"context"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	coordinationinformers "k8s.io/client-go/informers/coordination/v1"
	"k8s.io/client-go/kubernetes"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/utils/ptr"
)

// leaseWatch follows a Lease of which another process may be the holder. It calls free when the Lease
// is given up, deleted, or has run out. As in client-go, a lease runs out when this process has seen
// no change of it for its duration: the clocks of processes are not compared. It is safe for
// concurrent use.
type leaseWatch struct {
	free func()

	mu        sync.Mutex
	holder    string
	renewed   time.Time // as the holder wrote it, to recognize this version of the Lease
	changedAt time.Time // when this process saw that version
	expires   *time.Timer
}

// run watches until ctx ends. A watch that breaks or is refused is begun again, ever more slowly.
func (w *leaseWatch) run(ctx context.Context, client kubernetes.Interface, namespace, name string) error {
	informer := coordinationinformers.NewFilteredLeaseInformer(client, namespace, 0, toolscache.Indexers{}, func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()
	})
	_, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc:    w.changed,
		UpdateFunc: func(_, obj any) { w.changed(obj) },
		DeleteFunc: func(any) { w.free() },
	})
	if err != nil {
		return err
	}
	informer.RunWithContext(ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.expires != nil {
		w.expires.Stop()
	}
	return nil
}

func (w *leaseWatch) changed(obj any) {
	lease, ok := obj.(*coordinationv1.Lease)
	if !ok {
		return // never: the informer is one of Leases
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	holder, renewed := ptr.Deref(lease.Spec.HolderIdentity, ""), ptr.Deref(lease.Spec.RenewTime, metav1.MicroTime{}).Time
	if holder == w.holder && renewed.Equal(w.renewed) && w.expires != nil {
		return // another client changed something else, or the watch was begun again
	}
	w.holder, w.renewed, w.changedAt = holder, renewed, time.Now()
	if w.expires != nil {
		w.expires.Stop()
	}
	var left time.Duration
	if holder != "" {
		left = time.Duration(ptr.Deref(lease.Spec.LeaseDurationSeconds, 0)) * time.Second
	}
	w.expires = time.AfterFunc(left, w.free)
}

// ranOut returns true if record is the Lease as it was seen last, and that was its duration ago.
func (w *leaseWatch) ranOut(record *resourcelock.LeaderElectionRecord) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.changedAt.IsZero() && record.HolderIdentity == w.holder && record.RenewTime.Time.Equal(w.renewed) &&
		time.Since(w.changedAt) >= time.Duration(record.LeaseDurationSeconds)*time.Second
}
