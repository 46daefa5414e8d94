package rootca

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
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
	"github.com/sakeeper/sakeeper/pkg/internal/workqueue"
	"github.com/sakeeper/sakeeper/pkg/internal/writebackoff"
	"github.com/sakeeper/sakeeper/pkg/kube"
)

// Name is kube-controller-manager's name of this controller.
const Name = "root-ca-certificate-publisher-controller"

// Description is the text of the annotation kubernetes.io/description, word for
// word the one that clusters already have.
const Description = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. " +
	"No other usage is guaranteed across distributions of Kubernetes clusters."

const (
	// repairsPerSecond and repairsAtOnce pace a new CA: a thousand namespaces at once,
	// and 10,000 in 45 s.
	repairsPerSecond = 200
	repairsAtOnce    = 1000
	// lookAgain is when to look again after a conflict: not every one has an event
	// behind it, because admission may answer with one too.
	lookAgain = time.Second
)

// Config is what the controller needs; all but the last two is required.
type Config struct {
	Client     typedcorev1.ConfigMapsGetter
	Namespaces toolscache.TypedSharedIndexInformer[*corev1.Namespace]
	RootCAs    toolscache.TypedSharedIndexInformer[*cache.RootCA]
	// CA returns the bundle to publish at this moment.
	CA       func() cabundle.Bundle
	Recorder record.EventRecorder
	Clock    clock.PassiveClock
	// Registerer gets the metrics. Nil: they are not exported.
	Registerer prometheus.Registerer
}

// Controller publishes the root CA.
type Controller struct {
	cfg     Config
	queue   *workqueue.Queue[namespaceKey]
	repairs *workqueue.KeyedLimiter[namespaceKey]
	truces  *writebackoff.Tracker[contested]
	synced  []toolscache.DoneChecker
}

// contested is the ConfigMap in one life of its namespace.
type contested struct {
	namespace types.UID
	name      namespaceKey
}

// namespaceKey is the name of a namespace.
type namespaceKey string

// New checks cfg and registers with the informers, which the caller starts.
func New(cfg Config) (*Controller, error) {
	if cfg.Client == nil || cfg.Namespaces == nil || cfg.RootCAs == nil || cfg.CA == nil || cfg.Recorder == nil || cfg.Clock == nil {
		return nil, fmt.Errorf("%s: Client, Namespaces, RootCAs, CA, Recorder and Clock are required", Name)
	}
	c := &Controller{
		cfg:     cfg,
		repairs: workqueue.NewKeyedLimiter[namespaceKey](cfg.Clock, repairsPerSecond, repairsAtOnce),
		truces:  writebackoff.New[contested]("configmaps", cfg.Clock, cfg.Registerer),
	}
	var err error
	if c.queue, err = workqueue.New(workqueue.Config[namespaceKey]{
		Name: Name, Sync: c.sync, Workers: api.DefaultWorkers, Registerer: cfg.Registerer,
	}); err != nil {
		return nil, err
	}
	namespaces, errNamespaces := workqueue.Watch(cfg.Namespaces, workqueue.Events[*corev1.Namespace]{
		Changed: c.enqueueNamespace,
		// Labels and the like do not matter, and in the moment between our create and
		// its event an update would cost a create that the API server refuses.
		Ignore: func(old, updated *corev1.Namespace) bool { return old.Status.Phase == updated.Status.Phase },
	})
	configMaps, errConfigMaps := workqueue.Watch(cfg.RootCAs, workqueue.Events[*cache.RootCA]{
		Changed: c.enqueueConfigMap, Deleted: c.enqueueConfigMap,
	})
	c.synced = []toolscache.DoneChecker{namespaces, configMaps}
	return c, errors.Join(errNamespaces, errConfigMaps)
}

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.queue.Run(ctx, c.synced...) }

// Ready tells whether every namespace that existed at the start was handled once.
func (c *Controller) Ready() bool { return c.queue.Ready() }

// EnqueueAll looks at every namespace again; call it when the CA changed. Writes
// are paced.
func (c *Controller) EnqueueAll() {
	for _, name := range c.cfg.Namespaces.GetStore().ListKeys() {
		c.queue.Add(namespaceKey(name))
	}
}

func (c *Controller) sync(ctx context.Context, key namespaceKey) (time.Duration, error) {
	ca := c.cfg.CA()
	s := state{sum: ca.Sum()}
	object := contested{name: key}
	namespace, ok := cache.Get(c.cfg.Namespaces, string(key))
	if ok {
		s.phase, object.namespace = namespace.Status.Phase, namespace.UID
	}
	s.found, _ = cache.Get(c.cfg.RootCAs, string(key)+"/"+api.RootCAConfigMap)
	act, reason := decide(s)
	if act != repair {
		c.repairs.Forget(key)
	}
	if act == none {
		klog.FromContext(ctx).V(4).Info("Skipped root CA config map", "reason", reason)
		return 0, nil
	}
	if act == repair {
		if wait := c.repairs.When(key); wait > 0 {
			return wait, workqueue.ErrRequeueLater
		}
	}
	verdict := c.truces.Allow(object, ca.Fingerprint())
	writebackoff.Report(ctx, c.cfg.Recorder, &corev1.ObjectReference{
		Kind: "ConfigMap", APIVersion: "v1", Namespace: string(key), Name: api.RootCAConfigMap,
	}, verdict)
	if verdict.Wait > 0 {
		return verdict.Wait, nil
	}
	wrote := func() { c.truces.Record(object, ca.Fingerprint()) }
	if act == create {
		return 0, c.create(ctx, string(key), ca, func() {
			wrote()
			c.queue.Completed(namespace.CreationTimestamp.Time)
		})
	}
	return c.repair(ctx, s.found, ca, reason, wrote)
}

func (c *Controller) create(ctx context.Context, namespace string, ca cabundle.Bundle, wrote func()) error {
	cm := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:   namespace,
			Name:        api.RootCAConfigMap,
			Annotations: map[string]string{cache.DescriptionAnnotation: Description},
		},
		Data: map[string]string{corev1.ServiceAccountRootCAKey: string(ca.PEM())},
	}
	_, err := c.cfg.Client.ConfigMaps(namespace).Create(ctx, cm, metav1.CreateOptions{})
	switch {
	case err == nil:
		wrote()
		klog.FromContext(ctx).V(2).Info("Created root CA config map", "configMap", klog.KObj(cm))
		return nil
	case apierrors.IsAlreadyExists(err):
		return nil // somebody was faster, and the event will show what they wrote
	case apierrors.IsNotFound(err), apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return nil // the namespace went, or is going
	}
	return c.refused(ctx, namespace, fmt.Errorf("create config map %s/%s: %w", namespace, api.RootCAConfigMap, err))
}

// repair changes data to exactly the CA and sets the description, as in-tree also
// where a user wrote another.
func (c *Controller) repair(ctx context.Context, found *cache.RootCA, ca cabundle.Bundle, reason string, wrote func()) (time.Duration, error) {
	write, verb := c.patch, "patch"
	if found.Plain {
		write, verb = c.update, "update"
	}
	err := write(ctx, found, ca)
	switch {
	case err == nil:
		wrote()
		klog.FromContext(ctx).V(2).Info("Repaired root CA config map", "configMap", klog.KObj(found), "reason", reason)
		return 0, nil
	case apierrors.IsConflict(err):
		return lookAgain, nil
	case apierrors.IsNotFound(err):
		return 0, nil // it went: its event decides anew
	}
	return 0, c.refused(ctx, found.Namespace, fmt.Errorf("%s config map %s/%s: %w", verb, found.Namespace, found.Name, err))
}

// update replaces the object: a patch costs the API server more.
func (c *Controller) update(ctx context.Context, found *cache.RootCA, ca cabundle.Bundle) error {
	cm := &corev1.ConfigMap{ObjectMeta: *found.DeepCopy(), Data: map[string]string{corev1.ServiceAccountRootCAKey: string(ca.PEM())}}
	metav1.SetMetaDataAnnotation(&cm.ObjectMeta, cache.DescriptionAnnotation, Description)
	_, err := c.cfg.Client.ConfigMaps(found.Namespace).Update(ctx, cm, metav1.UpdateOptions{})
	return err
}

// patch leaves alone what of the object was never cached.
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

// refused tells people of a refusal that only they can lift, and returns err.
func (c *Controller) refused(ctx context.Context, namespace string, err error) error {
	if (apierrors.IsInvalid(err) || apierrors.IsForbidden(err)) && workqueue.Report(ctx) {
		c.cfg.Recorder.Eventf(&corev1.ObjectReference{Kind: "Namespace", APIVersion: "v1", Name: namespace},
			corev1.EventTypeWarning, api.ReasonFailedPublishRootCA, "The API server refuses to %v", err)
	}
	return err
}

func (c *Controller) enqueueNamespace(namespace *corev1.Namespace) {
	c.queue.Add(namespaceKey(namespace.Name))
}

func (c *Controller) enqueueConfigMap(cm *cache.RootCA) {
	c.queue.Add(namespaceKey(cm.Namespace))
}
