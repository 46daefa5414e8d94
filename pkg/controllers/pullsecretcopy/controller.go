package pullsecretcopy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/metadata"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/api/v1alpha1"
	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/internal/templatestatus"
	"github.com/sakeeper/sakeeper/pkg/internal/workqueue"
	"github.com/sakeeper/sakeeper/pkg/internal/writebackoff"
)

// Name is the name of this controller, which kube-controller-manager does not have.
const Name = "pull-secret-copy-controller"

// Client reads sources and namespaces, and writes copies.
type Client interface {
	typedcorev1.SecretsGetter
	typedcorev1.NamespacesGetter
}

// TemplateClient reads templates, and writes their status.
type TemplateClient interface {
	List(ctx context.Context, options metav1.ListOptions) (*v1alpha1.ServiceAccountTemplateList, error)
	Patch(ctx context.Context, name string, patchType types.PatchType, patch []byte, options metav1.PatchOptions, subresources ...string) (*v1alpha1.ServiceAccountTemplate, error)
}

// Config has the inputs of the controller. All but SourceNamespaces, Workers and Registerer are required.
type Config struct {
	Client Client
	// Metadata reads whether a Secret exists.
	Metadata   metadata.Interface
	Namespaces toolscache.TypedSharedIndexInformer[*corev1.Namespace]
	Templates  toolscache.TypedSharedIndexInformer[*cache.Template]
	// TemplatesErr returns what keeps Templates from being read, or nil.
	TemplatesErr   func() error
	TemplateClient TemplateClient
	// SourceNamespaces are those that may be copied from, and Sources has their pull secrets. None:
	// nothing is copied.
	SourceNamespaces []string
	Sources          *Secrets
	// Copies says in which namespaces copies are kept.
	Copies   *Secrets
	Recorder record.EventRecorder
	Clock    clock.PassiveClock
	// Workers is how many copies are handled at a time. Zero: one.
	Workers int
	// Registerer registers the metrics. Nil: they are not exported.
	Registerer prometheus.Registerer
}

// Controller keeps copies.
type Controller struct {
	cfg      Config
	queue    *workqueue.Queue[toolscache.ObjectName]
	statuses *workqueue.Queue[allStatuses]
	backoff  *writebackoff.Tracker[objectKey]
	reader   *reader
	synced   []toolscache.DoneChecker
	pace     templatestatus.Pace // of statuses

	mu sync.Mutex
	// problems say what the API server keeps from being written.
	problems map[toolscache.ObjectName]string
}

// New checks cfg and adds event handlers to the informers, which the caller starts.
func New(cfg Config) (*Controller, error) {
	switch {
	case cfg.Client == nil, cfg.Metadata == nil, cfg.Namespaces == nil, cfg.Templates == nil, cfg.TemplatesErr == nil, cfg.TemplateClient == nil:
		return nil, fmt.Errorf("%s: Client, Metadata, Namespaces, Templates, TemplatesErr and TemplateClient are required", Name)
	case cfg.Sources == nil, cfg.Copies == nil, cfg.Recorder == nil, cfg.Clock == nil:
		return nil, fmt.Errorf("%s: Sources, Copies, Recorder and Clock are required", Name)
	}
	c := &Controller{
		cfg: cfg, problems: map[toolscache.ObjectName]string{}, pace: templatestatus.Pace{Clock: cfg.Clock, Interval: templatestatus.Interval},
		reader:  &reader{client: cfg.Client, reads: map[version]*read{}},
		backoff: writebackoff.New[objectKey]("pull secret copies", cfg.Clock, cfg.Registerer),
	}
	var errQueue, errStatuses error
	c.queue, errQueue = workqueue.New(workqueue.Config[toolscache.ObjectName]{
		Name: Name, Sync: c.sync, Workers: cfg.Workers, Registerer: cfg.Registerer,
	})
	c.statuses, errStatuses = workqueue.New(workqueue.Config[allStatuses]{
		Name: Name + "-status", Sync: c.syncStatuses, Registerer: cfg.Registerer,
	})
	if err := errors.Join(errQueue, errStatuses); err != nil {
		return nil, err
	}
	return c, c.watch()
}

// watch adds the event handlers.
func (c *Controller) watch() error {
	namespaces, errNamespaces := workqueue.Watch(c.cfg.Namespaces, workqueue.Events[*corev1.Namespace]{
		Changed: c.enqueueNamespace,
		Ignore: func(old, updated *corev1.Namespace) bool {
			return old.Status.Phase == updated.Status.Phase && equality.Semantic.DeepEqual(old.Labels, updated.Labels)
		},
	})
	templates, errTemplates := workqueue.Watch(c.cfg.Templates, workqueue.Events[*cache.Template]{
		Listed:  c.enqueueListedTemplate,
		Changed: c.enqueueTemplate, Deleted: c.enqueueTemplate,
		Ignore: func(old, updated *cache.Template) bool { return old.Generation == updated.Generation },
	})
	c.synced = []toolscache.DoneChecker{namespaces, templates}
	errs := []error{errNamespaces, errTemplates}
	add := func(secrets *Secrets, events workqueue.Events[*cache.PullSecret]) {
		for _, list := range secrets.informers {
			for _, made := range list {
				checker, err := workqueue.Watch(made, events)
				c.synced, errs = append(c.synced, checker), append(errs, err)
			}
		}
	}
	add(c.cfg.Copies, workqueue.Events[*cache.PullSecret]{Changed: c.enqueueCopy, Deleted: c.enqueueCopy})
	add(c.cfg.Sources, workqueue.Events[*cache.PullSecret]{
		Listed:  func(*cache.PullSecret) {}, // the namespaces and templates of the initial lists queue all copies
		Changed: c.enqueueSource, Deleted: c.enqueueSource,
	})
	return errors.Join(errs...)
}

// Run keeps copies until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return c.queue.Run(ctx, c.synced...) })
	group.Go(func() error { return c.statuses.Run(ctx, c.synced...) })
	return group.Wait()
}

// Ready returns true once every copy that templates named at the start was handled, while templates
// can be read.
func (c *Controller) Ready() bool { return c.queue.Ready() && c.cfg.TemplatesErr() == nil }

// Err returns what keeps the controller from working, which is tried again, or nil.
func (c *Controller) Err() error { return c.cfg.TemplatesErr() }

func (c *Controller) sync(ctx context.Context, key toolscache.ObjectName) (requeueAfter time.Duration, err error) {
	s := c.gather(key, c.templates())
	p := decide(s)
	if len(s.claims) > 0 || p.action != none {
		c.statuses.AddAfter(allStatuses{}, templatestatus.Delay)
	}
	switch p.action {
	case create:
		return c.create(ctx, s)
	case apply:
		return c.apply(ctx, s)
	case replace:
		return c.replace(ctx, s)
	case remove:
		return c.remove(ctx, s)
	case none:
	}
	klog.FromContext(ctx).V(4).Info("Skipped pull secret", "reason", p.reason)
	c.note(key, "")
	return 0, nil
}

// gather reads the caches.
func (c *Controller) gather(key toolscache.ObjectName, templates []*cache.Template) state {
	s := state{key: key, isServed: c.cfg.Copies.serves(key.Namespace), isInvalid: isInvalid(templates), sourceNamespaces: c.cfg.SourceNamespaces}
	s.namespace, _ = cache.Get(c.cfg.Namespaces, key.Namespace)
	if s.namespace == nil {
		return s
	}
	s.copied = c.cfg.Copies.get(key)
	if s.claims = claimsFor(s.namespace, key.Name, templates); len(s.claims) > 0 {
		s.source = c.cfg.Sources.get(s.claims[0].source)
	}
	return s
}

func isInvalid(templates []*cache.Template) bool {
	return slices.ContainsFunc(templates, func(t *cache.Template) bool { return t.Invalid != nil })
}

// templates returns all templates by precedence.
func (c *Controller) templates() []*cache.Template {
	templates := listed(c.cfg.Templates)
	slices.SortFunc(templates, cache.CompareTemplates)
	return templates
}

// listed returns what an informer has.
func listed[T toolscache.Object](informer toolscache.TypedSharedIndexInformer[T]) []T {
	var all []T
	for _, obj := range informer.GetStore().List() {
		if o, ok := obj.(T); ok { // always: the informer is typed
			all = append(all, o)
		}
	}
	return all
}

// note keeps what is wrong with a copy for the status of its templates. An empty problem is none.
func (c *Controller) note(key toolscache.ObjectName, problem string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if problem == "" {
		delete(c.problems, key)
	} else {
		c.problems[key] = problem
	}
}

func (c *Controller) problem(key toolscache.ObjectName) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.problems[key]
}

func (c *Controller) enqueueCopy(secret *cache.PullSecret) {
	c.queue.Add(toolscache.MetaObjectToName(secret))
}

func (c *Controller) enqueueNamespace(namespace *corev1.Namespace) {
	for _, secret := range c.cfg.Copies.in(namespace.Name) {
		c.enqueueCopy(secret)
	}
	for _, t := range c.templates() {
		c.enqueueNamed(namespace, t, 0, nil)
	}
	c.statuses.AddAfter(allStatuses{}, templatestatus.Delay)
}

// enqueueSource queues the copies of a source.
func (c *Controller) enqueueSource(source *cache.PullSecret) {
	name := toolscache.MetaObjectToName(source)
	for _, t := range c.templates() {
		if slices.ContainsFunc(t.Spec.ImagePullSecrets, func(secret v1alpha1.PullSecret) bool { return isFrom(secret, &name) }) {
			workqueue.EnqueueAll(c.cfg.Namespaces, func(namespace *corev1.Namespace, delay time.Duration) {
				c.enqueueNamed(namespace, t, delay, &name)
			})
		}
	}
}

// enqueueListedTemplate queues what a template of the initial list names: every copy that exists is listed
// too.
func (c *Controller) enqueueListedTemplate(t *cache.Template) {
	for _, namespace := range listed(c.cfg.Namespaces) {
		c.enqueueNamed(namespace, t, 0, nil)
	}
	c.statuses.AddAfter(allStatuses{}, templatestatus.Delay)
}

// enqueueTemplate queues what a template names, and every copy: those that it named before are not known.
func (c *Controller) enqueueTemplate(t *cache.Template) {
	for _, list := range c.cfg.Copies.informers {
		for _, made := range list {
			workqueue.EnqueueAll(made, func(secret *cache.PullSecret, delay time.Duration) {
				c.queue.AddAfter(toolscache.MetaObjectToName(secret), delay)
			})
		}
	}
	workqueue.EnqueueAll(c.cfg.Namespaces, func(namespace *corev1.Namespace, delay time.Duration) {
		c.enqueueNamed(namespace, t, delay, nil)
	})
	c.statuses.AddAfter(allStatuses{}, templatestatus.Delay)
}

// enqueueNamed queues the copies that a template names in a namespace: those of one source, or all.
func (c *Controller) enqueueNamed(namespace *corev1.Namespace, t *cache.Template, delay time.Duration, source *toolscache.ObjectName) {
	if !c.cfg.Copies.serves(namespace.Name) || !t.SelectsNamespace(namespace) {
		return
	}
	for _, secret := range t.Spec.ImagePullSecrets {
		if isFrom(secret, source) {
			c.queue.AddAfter(toolscache.NewObjectName(namespace.Name, string(secret.Name)), delay)
		}
	}
}

// isFrom returns true for an entry that copies a source, or any if source is nil.
func isFrom(secret v1alpha1.PullSecret, source *toolscache.ObjectName) bool {
	from := secret.CopyFrom
	return from != nil && (source == nil || *source == toolscache.NewObjectName(string(from.Namespace), string(from.Name)))
}
