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
	"github.com/sakeeper/sakeeper/pkg/kube"
)

// pass is the state of one pass. It is replaced when the next one begins.
type pass struct {
	// tracked is the time since which every use is recorded. Zero: unknown.
	tracked time.Time
	// found has the number of Secrets by namespace and verdict, total by verdict.
	found map[string]map[verdict]int
	total map[verdict]int
	// annotated has the date of the clean-up annotation of each ServiceAccount that got one
	// in this pass. The cache may not show it yet.
	annotated map[types.UID]string
	// rejected are the Secrets with an event about a change that the API server refuses.
	rejected sets.Set[types.UID]
}

func newPass(tracked time.Time) *pass {
	return &pass{
		tracked:   tracked,
		found:     map[string]map[verdict]int{},
		total:     map[verdict]int{},
		annotated: map[types.UID]string{},
		rejected:  sets.Set[types.UID]{},
	}
}

func (p *pass) count(namespace string, v verdict) {
	if p.found[namespace] == nil {
		p.found[namespace] = map[verdict]int{}
	}
	p.found[namespace][v]++
	p.total[v]++
}

// replace sets the counts of the namespace.
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

// begin starts a pass: it decides on every Secret by the caches alone, and queues the
// namespaces of the Secrets for which the pods matter.
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
		namespace, _ := cache.Get(c.cfg.Namespaces, secret.Namespace)
		s := c.gather(secret, namespace)
		d := decide(s)
		c.pass.count(secret.Namespace, d.verdict)
		c.recordWarning(s, d.warning, warned)
		if d.action == checkPods {
			queue.Insert(secret.Namespace)
		}
	}
	c.metrics.setVerdicts(c.pass.total)
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

// tracking reads the time since which every use is recorded. Zero without an error: it is
// unknown, which was reported by log and, if the ConfigMap is wrong, by event.
func (c *Controller) tracking(ctx context.Context) (time.Time, error) {
	found, err := c.cfg.Client.ConfigMaps(trackingNamespace).Get(ctx, trackingName, metav1.GetOptions{})
	name := klog.KRef(trackingNamespace, trackingName)
	switch {
	case apierrors.IsNotFound(err):
		klog.FromContext(ctx).Info("No tokens are cleaned up: the API server does not say since when it records their use, its config map is missing", "configMap", name)
		return time.Time{}, nil
	case err != nil:
		return time.Time{}, fmt.Errorf("get config map %s: %w", name, err)
	}
	tracked, problem := readTracking(found, c.cfg.Clock.Now())
	if problem != "" {
		klog.FromContext(ctx).Info("No tokens are cleaned up: the API server does not say since when it records their use", "configMap", name, "reason", problem)
		c.cfg.Recorder.Event(kube.Reference("ConfigMap", found), corev1.EventTypeWarning, api.ReasonUnusableTokenTracking, "No tokens are cleaned up, because "+problem)
	}
	return tracked, nil
}

// recordWarning records an event about a mistake that only a user can fix. One about a
// namespace is recorded once, and the namespace is added to warned.
func (c *Controller) recordWarning(s state, w warning, warned sets.Set[types.UID]) {
	if w.text == "" {
		return
	}
	object := kube.Reference("Secret", s.secret)
	if w.onNamespace {
		if warned.Has(s.namespace.UID) {
			return
		}
		warned.Insert(s.namespace.UID)
		object = kube.Reference("Namespace", s.namespace)
	}
	c.cfg.Recorder.Event(object, corev1.EventTypeWarning, w.reason, w.text)
}
