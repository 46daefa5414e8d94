package rootca

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/cabundle"
	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/internal/apiresult"
	"github.com/sakeeper/sakeeper/pkg/internal/workqueue"
	"github.com/sakeeper/sakeeper/pkg/internal/writebackoff"
	"github.com/sakeeper/sakeeper/pkg/kube"
)

// Name is kube-controller-manager's name of this controller.
const Name = "root-ca-certificate-publisher-controller"

// Description is the value of the annotation kubernetes.io/description. It must equal that
// of kube-controller-manager, which existing ConfigMaps have.
const Description = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. " +
	"No other usage is guaranteed across distributions of Kubernetes clusters."

// Config has the inputs of the controller. All but Registerer are required.
type Config struct {
	Client     typedcorev1.ConfigMapsGetter
	Namespaces toolscache.TypedSharedIndexInformer[*corev1.Namespace]
	RootCAs    toolscache.TypedSharedIndexInformer[*cache.RootCA]
	// CA returns the current bundle.
	CA       func() cabundle.Bundle
	Recorder record.EventRecorder
	Clock    clock.PassiveClock
	// Workers is how many namespaces are handled at a time. Zero: one.
	Workers int
	// Registerer registers the metrics. Nil: they are not exported.
	Registerer prometheus.Registerer
}

// Controller publishes the root CA.
type Controller struct {
	cfg     Config
	queue   *workqueue.Queue[namespaceKey]
	backoff *writebackoff.Tracker[objectKey]
	synced  []toolscache.DoneChecker
}

// objectKey identifies the ConfigMap of a namespace for the write backoff. A namespace that
// is created again has another UID, and its ConfigMap begins without backoff.
type objectKey struct {
	namespace types.UID
	name      namespaceKey
}

// namespaceKey is the name of a namespace.
type namespaceKey string

// New checks cfg and adds event handlers to the informers, which the caller starts.
func New(cfg Config) (*Controller, error) {
	if cfg.Client == nil || cfg.Namespaces == nil || cfg.RootCAs == nil || cfg.CA == nil || cfg.Recorder == nil || cfg.Clock == nil {
		return nil, fmt.Errorf("%s: Client, Namespaces, RootCAs, CA, Recorder and Clock are required", Name)
	}
	c := &Controller{
		cfg:     cfg,
		backoff: writebackoff.New[objectKey]("configmaps", cfg.Clock, cfg.Registerer),
	}
	var err error
	if c.queue, err = workqueue.New(workqueue.Config[namespaceKey]{
		Name: Name, Sync: c.sync, Workers: cfg.Workers, Registerer: cfg.Registerer,
	}); err != nil {
		return nil, err
	}
	namespaces, errNamespaces := workqueue.Watch(cfg.Namespaces, workqueue.Events[*corev1.Namespace]{
		Changed: c.enqueueNamespace,
		// Only the phase matters. Between our create and its event, any other update would
		// cause a second create, which the API server refuses.
		Ignore: func(old, updated *corev1.Namespace) bool { return old.Status.Phase == updated.Status.Phase },
	})
	configMaps, errConfigMaps := workqueue.Watch(cfg.RootCAs, workqueue.Events[*cache.RootCA]{
		Changed: c.enqueueConfigMap, Deleted: c.enqueueConfigMap,
	})
	c.synced = []toolscache.DoneChecker{namespaces, configMaps}
	return c, errors.Join(errNamespaces, errConfigMaps)
}

// Run publishes the root CA until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.queue.Run(ctx, c.synced...) }

// Ready returns true once every namespace that existed at the start was handled.
func (c *Controller) Ready() bool { return c.queue.Ready() }

// EnqueueAll queues every namespace, many of them over some time. Call it when the CA changed.
func (c *Controller) EnqueueAll() {
	workqueue.EnqueueAll(c.cfg.Namespaces, func(namespace *corev1.Namespace, delay time.Duration) {
		c.queue.AddAfter(namespaceKey(namespace.Name), delay)
	})
}

func (c *Controller) sync(ctx context.Context, key namespaceKey) (requeueAfter time.Duration, err error) {
	ca := c.cfg.CA()
	s := state{sum: ca.Sum()}
	object := objectKey{name: key}
	namespace, ok := cache.Get(c.cfg.Namespaces, string(key))
	if ok {
		s.phase, object.namespace = namespace.Status.Phase, namespace.UID
	}
	s.found, _ = cache.Get(c.cfg.RootCAs, string(key)+"/"+api.RootCAConfigMap)
	act, reason := decide(s)
	if act == none {
		klog.FromContext(ctx).V(4).Info("Skipped root CA config map", "reason", reason)
		return 0, nil
	}
	allowed := c.backoff.Allow(object, ca.Fingerprint())
	writebackoff.Report(ctx, c.cfg.Recorder, kube.Reference("ConfigMap", configMapMeta(key)), allowed)
	if allowed.Wait > 0 {
		return allowed.Wait, nil
	}
	record := func() { c.backoff.Record(object, ca.Fingerprint()) }
	if act == create {
		if err := c.create(ctx, key, ca, func() {
			record()
			c.queue.Completed(namespace.CreationTimestamp.Time)
		}); err != nil {
			return 0, err
		}
		return lookAgain, nil
	}
	return c.repair(ctx, s.found, ca, reason, record)
}

// lookAgain is when a ConfigMap that was created is decided on again. One that is deleted or changed
// while the watch is broken, before the cache has it, may have no event.
const lookAgain = time.Minute

func configMapMeta(namespace namespaceKey) *metav1.ObjectMeta {
	return &metav1.ObjectMeta{Namespace: string(namespace), Name: api.RootCAConfigMap}
}

// create calls created after the API server created the ConfigMap.
func (c *Controller) create(ctx context.Context, namespace namespaceKey, ca cabundle.Bundle, created func()) error {
	cm := &corev1.ConfigMap{
		ObjectMeta: *configMapMeta(namespace),
		Data:       map[string]string{corev1.ServiceAccountRootCAKey: string(ca.PEM())},
	}
	cm.Annotations = map[string]string{cache.DescriptionAnnotation: Description}
	_, err := c.cfg.Client.ConfigMaps(cm.Namespace).Create(ctx, cm, metav1.CreateOptions{})
	if err == nil {
		created()
		klog.FromContext(ctx).V(2).Info("Created root CA config map", "configMap", klog.KObj(cm))
	}
	return c.write("create", cm).Create(ctx, err)
}

// repair sets data to the CA alone, and the description. As in-tree, it also replaces a
// description that a user wrote. It calls repaired after the API server accepted the write.
func (c *Controller) repair(ctx context.Context, found *cache.RootCA, ca cabundle.Bundle, reason string, repaired func()) (time.Duration, error) {
	send, verb := c.patch, "patch"
	if found.Plain {
		send, verb = c.update, "update"
	}
	err := send(ctx, found, ca)
	if err == nil {
		repaired()
		klog.FromContext(ctx).V(2).Info("Repaired root CA config map", "configMap", klog.KObj(found), "reason", reason)
	}
	return c.write(verb, found).Change(ctx, err)
}

// write describes a write of the ConfigMap cm. The event is on the namespace, where a user
// looks who misses the ConfigMap.
func (c *Controller) write(verb string, cm metav1.Object) apiresult.Write {
	return apiresult.Write{
		Doing:    fmt.Sprintf("%s config map %s/%s", verb, cm.GetNamespace(), cm.GetName()),
		Recorder: c.cfg.Recorder, Object: kube.NamespaceReference(cm.GetNamespace()), Reason: api.ReasonFailedPublishRootCA,
	}
}

// update sends the whole object, of which the cache holds everything: a PUT costs the API
// server less than a patch.
func (c *Controller) update(ctx context.Context, found *cache.RootCA, ca cabundle.Bundle) error {
	cm := &corev1.ConfigMap{ObjectMeta: *found.DeepCopy(), Data: map[string]string{corev1.ServiceAccountRootCAKey: string(ca.PEM())}}
	metav1.SetMetaDataAnnotation(&cm.ObjectMeta, cache.DescriptionAnnotation, Description)
	_, err := c.cfg.Client.ConfigMaps(found.Namespace).Update(ctx, cm, metav1.UpdateOptions{})
	return err
}

// patch does not change the parts of the object that the cache does not hold.
func (c *Controller) patch(ctx context.Context, found *cache.RootCA, ca cabundle.Bundle) error {
	data := map[string]any{corev1.ServiceAccountRootCAKey: string(ca.PEM())}
	for _, key := range found.OtherKeys {
		data[key] = nil
	}
	patch, err := kube.MergePatch(found, map[string]any{
		"metadata": map[string]any{"annotations": map[string]string{cache.DescriptionAnnotation: Description}},
		"data":     data,
	})
	if err != nil {
		return err
	}
	_, err = c.cfg.Client.ConfigMaps(found.Namespace).Patch(ctx, found.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}

func (c *Controller) enqueueNamespace(namespace *corev1.Namespace) {
	c.queue.Add(namespaceKey(namespace.Name))
}

func (c *Controller) enqueueConfigMap(cm *cache.RootCA) {
	c.queue.Add(namespaceKey(cm.Namespace))
}
