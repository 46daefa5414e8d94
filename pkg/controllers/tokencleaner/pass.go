package tokencleaner

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/klog/v2"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/cache"
)

// pass is what is known until the next one begins.
type pass struct {
	// tracked is from when on every use is on record. Zero: nobody can tell.
	tracked time.Time
	// found are the numbers of Secrets by namespace, and total is their sum.
	found map[string]map[verdict]int
	total map[verdict]int
	// noted are the ServiceAccounts that were told of a clean-up, and the date. The
	// cache may not show that yet.
	noted map[types.UID]string
	// refused are the Secrets whose change the API server refuses, as people were told.
	refused sets.Set[types.UID]
}

func newPass(tracked time.Time) *pass {
	return &pass{
		tracked: tracked,
		found:   map[string]map[verdict]int{},
		total:   map[verdict]int{},
		noted:   map[types.UID]string{},
		refused: sets.Set[types.UID]{},
	}
}

func (p *pass) count(namespace string, v verdict) {
	if p.found[namespace] == nil {
		p.found[namespace] = map[verdict]int{}
	}
	p.found[namespace][v]++
	p.total[v]++
}

// replace takes counts for all that is known of the namespace.
func (p *pass) replace(namespace string, counts map[verdict]int) {
	for v, n := range p.found[namespace] {
		if p.total[v] -= n; p.total[v] == 0 {
			delete(p.total, v)
		}
	}
	for v, n := range counts {
		p.total[v] += n
	}
	p.found[namespace] = counts
}

// begin judges every Secret by what is cached, and queues the namespaces of those of
// which that is not enough.
func (c *Controller) begin(ctx context.Context) error {
	tracked, err := c.tracking(ctx)
	if err != nil {
		return err
	}
	c.pass = newPass(tracked)
	queue, warned := sets.Set[string]{}, sets.Set[types.UID]{}
	for _, obj := range c.cfg.Secrets.GetStore().List() {
		secret, ok := obj.(*cache.TokenSecret)
		if !ok {
			continue
		}
		s := c.gather(secret)
		d := decide(s)
		c.pass.count(secret.Namespace, d.verdict)
		c.complain(s, d.complaint, warned)
		if d.action == look {
			queue.Insert(secret.Namespace)
		}
	}
	c.metrics.found(c.pass.total)
	for _, namespace := range sets.List(queue) {
		c.queue.Add(task(namespace))
	}
	c.queue.Add(end)
	return nil
}

func (c *Controller) end(ctx context.Context) {
	c.metrics.completed(c.cfg.Clock.Now())
	c.ready.Store(true)
	klog.FromContext(ctx).Info("Completed a clean-up pass", "secrets", c.pass.total, "dryRun", c.cfg.DryRun)
}

// tracking reads from when on every use is on record. Zero without an error: nobody
// can tell, and people were told.
func (c *Controller) tracking(ctx context.Context) (time.Time, error) {
	found, err := c.cfg.Client.ConfigMaps(trackingNamespace).Get(ctx, trackingName, metav1.GetOptions{})
	name := klog.KRef(trackingNamespace, trackingName)
	switch {
	case apierrors.IsNotFound(err):
		klog.FromContext(ctx).Info("No tokens are cleaned up: the API server does not say since when it notes their use, its config map is missing", "configMap", name)
		return time.Time{}, nil
	case err != nil:
		return time.Time{}, fmt.Errorf("get config map %s: %w", name, err)
	}
	tracked, trouble := readTracking(found, c.cfg.Clock.Now())
	if trouble != "" {
		klog.FromContext(ctx).Info("No tokens are cleaned up: the API server does not say since when it notes their use", "configMap", name, "reason", trouble)
		c.cfg.Recorder.Event(&corev1.ObjectReference{
			Kind: "ConfigMap", APIVersion: "v1", Namespace: found.Namespace, Name: found.Name, UID: found.UID,
		}, corev1.EventTypeWarning, api.ReasonUnusableTokenTracking, "No tokens are cleaned up, because "+trouble)
	}
	return tracked, nil
}

// complain tells people of their mistake, and of one on a namespace once.
func (c *Controller) complain(s state, about complaint, warned sets.Set[types.UID]) {
	if about.text == "" {
		return
	}
	object := objectReference(s.secret)
	if about.onNamespace {
		if warned.Has(s.namespace.UID) {
			return
		}
		warned.Insert(s.namespace.UID)
		object = &corev1.ObjectReference{Kind: "Namespace", APIVersion: "v1", Name: s.namespace.Name, UID: s.namespace.UID}
	}
	c.cfg.Recorder.Event(object, corev1.EventTypeWarning, about.reason, about.text)
}
