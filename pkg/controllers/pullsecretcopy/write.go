package pullsecretcopy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/internal/apiresult"
	"github.com/sakeeper/sakeeper/pkg/internal/writebackoff"
	"github.com/sakeeper/sakeeper/pkg/kube"
)

const (
	// inTheWay is the problem of a copy whose name another Secret has.
	inTheWay = "a Secret of this name is there that is not a copy"
	// lookAgainAfter is when it is looked again whether that Secret is there: no informer has it.
	lookAgainAfter = time.Minute
)

// objectKey identifies a copy for the write backoff, also one that is deleted and created again.
type objectKey struct {
	namespace types.UID
	name      string
}

func (s state) objectKey() objectKey { return objectKey{namespace: s.namespace.UID, name: s.key.Name} }

// reference is the object of events about a copy: the namespace if it does not exist.
func (s state) reference() *corev1.ObjectReference {
	if s.copied == nil {
		return kube.NamespaceReference(s.key.Namespace)
	}
	return kube.Reference("Secret", s.copied)
}

func (c *Controller) writeOf(s state, verb string) apiresult.Write {
	return apiresult.Write{
		Doing: verb + " secret " + s.key.String(), Recorder: c.cfg.Recorder, Object: s.reference(), Reason: api.ReasonFailedCopyPullSecret,
	}
}

// delay returns how long the write backoff delays a write of the source to the copy.
func (c *Controller) delay(ctx context.Context, s state) time.Duration {
	allowed := c.backoff.Allow(s.objectKey(), versionOf(s.source))
	writebackoff.Report(ctx, c.cfg.Recorder, s.reference(), allowed)
	if allowed.Wait > 0 {
		c.note(s.key, "another client keeps changing it back")
	}
	return allowed.Wait
}

// record notes the outcome of a write.
func (c *Controller) record(ctx context.Context, s state, err error) {
	if err != nil {
		return
	}
	c.backoff.Record(s.objectKey(), versionOf(s.source))
	klog.FromContext(ctx).V(2).Info("Copied pull secret", "secret", klog.KRef(s.key.Namespace, s.key.Name), "source", klog.KObj(s.source))
}

// finish notes what the result of a sync says about the copy.
func (c *Controller) finish(key toolscache.ObjectName, err error) error {
	if err != nil {
		c.note(key, err.Error())
	} else {
		c.note(key, "")
	}
	return err
}

func (c *Controller) create(ctx context.Context, s state) (time.Duration, error) {
	write := c.writeOf(s, "create")
	if c.problem(s.key) == inTheWay {
		switch there, err := c.exists(ctx, s.key); {
		case err != nil:
			return 0, c.writeOf(s, "look for").Failed(ctx, err)
		case there:
			return lookAgainAfter, nil
		}
	}
	if wait := c.delay(ctx, s); wait > 0 {
		return wait, nil
	}
	err := c.reader.use(ctx, s.source, func(source *corev1.Secret) error { return c.createFrom(ctx, s.key, source) })
	c.record(ctx, s, err)
	switch {
	case apierrors.IsAlreadyExists(err): // it may be a copy that the cache does not have yet: then its event follows
		c.note(s.key, inTheWay)
		return lookAgainAfter, nil
	case errors.Is(err, errSourceChanged):
		return apiresult.ConflictRequeueAfter, nil
	case err == nil:
		c.queue.Completed(s.namespace.CreationTimestamp.Time)
	}
	return 0, c.finish(s.key, write.Create(ctx, err))
}

// exists returns true if there is a Secret with that name, of which it reads the metadata.
func (c *Controller) exists(ctx context.Context, key toolscache.ObjectName) (bool, error) {
	list, err := c.cfg.Metadata.Resource(corev1.SchemeGroupVersion.WithResource("secrets")).Namespace(key.Namespace).List(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, key.Name).String(),
	})
	return err == nil && len(list.Items) > 0, err
}

func (c *Controller) createFrom(ctx context.Context, key toolscache.ObjectName, source *corev1.Secret) error {
	_, err := c.cfg.Client.Secrets(key.Namespace).Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: key.Namespace, Name: key.Name, Labels: map[string]string{api.PullSecretLabel: api.PullSecretCopy}, Annotations: annotationsOf(source),
		},
		Type: source.Type,
		Data: credentials(source),
	}, metav1.CreateOptions{FieldManager: api.PullSecretFieldManager})
	return err
}

func annotationsOf(source *corev1.Secret) map[string]string {
	return map[string]string{
		api.CopiedFromAnnotation: toolscache.MetaObjectToName(source).String(), api.CopiedVersionAnnotation: versionOf(source),
	}
}

// credentials is the part of the data that is copied. Kubelets read no other key.
func credentials(source *corev1.Secret) map[string][]byte {
	key := cache.PullSecretKey(source.Type)
	return map[string][]byte{key: source.Data[key]}
}

func (c *Controller) apply(ctx context.Context, s state) (time.Duration, error) {
	if wait := c.delay(ctx, s); wait > 0 {
		return wait, nil
	}
	err := c.reader.use(ctx, s.source, func(source *corev1.Secret) error {
		err := c.applyTo(ctx, s.copied, source)
		if isImmutable(err) {
			return c.replaceBy(ctx, s.copied, source)
		}
		return err
	})
	return c.changed(ctx, s, "apply", err)
}

// changed handles the result of a change of a copy that exists.
func (c *Controller) changed(ctx context.Context, s state, verb string, err error) (time.Duration, error) {
	c.record(ctx, s, err)
	if errors.Is(err, errSourceChanged) {
		return apiresult.ConflictRequeueAfter, nil
	}
	requeueAfter, err := c.writeOf(s, verb).Change(ctx, err)
	return requeueAfter, c.finish(s.key, err)
}

// applyTo makes our field manager the owner of all that a copy is made of.
func (c *Controller) applyTo(ctx context.Context, copied *cache.PullSecret, source *corev1.Secret) error {
	applied := applycorev1.Secret(copied.Name, copied.Namespace).WithUID(copied.UID).WithResourceVersion(copied.ResourceVersion).
		WithLabels(map[string]string{api.PullSecretLabel: api.PullSecretCopy}).WithAnnotations(annotationsOf(source)).
		WithType(source.Type).WithData(credentials(source))
	_, err := c.cfg.Client.Secrets(copied.Namespace).Apply(ctx, applied, metav1.ApplyOptions{FieldManager: api.PullSecretFieldManager, Force: true})
	return err
}

// isImmutable returns true if the API server refuses other data for an immutable Secret.
func isImmutable(err error) bool {
	var status apierrors.APIStatus
	return apierrors.IsInvalid(err) && errors.As(err, &status) && status.Status().Details != nil &&
		slices.ContainsFunc(status.Status().Details.Causes, func(cause metav1.StatusCause) bool {
			return cause.Type == metav1.CauseTypeForbidden && cause.Field == "data"
		})
}

func (c *Controller) replace(ctx context.Context, s state) (time.Duration, error) {
	if wait := c.delay(ctx, s); wait > 0 {
		return wait, nil
	}
	err := c.reader.use(ctx, s.source, func(source *corev1.Secret) error { return c.replaceBy(ctx, s.copied, source) })
	return c.changed(ctx, s, "replace", err)
}

// replaceBy deletes a copy and creates it anew: right away, because pods cannot pull meanwhile.
func (c *Controller) replaceBy(ctx context.Context, copied *cache.PullSecret, source *corev1.Secret) error {
	if err := c.delete(ctx, copied); err != nil {
		return err
	}
	err := c.createFrom(ctx, toolscache.MetaObjectToName(copied), source)
	if apierrors.IsAlreadyExists(err) {
		return nil // a finalizer holds the old copy, or another client was first: an event follows
	}
	return err
}

// delete deletes a copy that is as the cache says.
func (c *Controller) delete(ctx context.Context, copied *cache.PullSecret) error {
	return c.cfg.Client.Secrets(copied.Namespace).Delete(ctx, copied.Name, metav1.DeleteOptions{
		Preconditions: &metav1.Preconditions{UID: &copied.UID, ResourceVersion: &copied.ResourceVersion},
	})
}

// remove deletes a copy that no template names, if the API server says so too.
func (c *Controller) remove(ctx context.Context, s state) (time.Duration, error) {
	live, err := c.gatherLive(ctx, s)
	if err != nil {
		return 0, c.writeOf(s, "delete").Failed(ctx, err)
	}
	if p := decide(live); p.action != remove {
		return apiresult.ConflictRequeueAfter, nil // the caches are behind
	}
	err = c.delete(ctx, s.copied)
	if err == nil {
		klog.FromContext(ctx).V(2).Info("Deleted copy of pull secret", "secret", klog.KRef(s.key.Namespace, s.key.Name))
	}
	requeueAfter, err := c.writeOf(s, "delete").Change(ctx, err)
	return requeueAfter, c.finish(s.key, err)
}

// gatherLive returns the state of a copy with the templates and the namespace as the API server has them.
func (c *Controller) gatherLive(ctx context.Context, s state) (state, error) {
	list, err := c.cfg.TemplateClient.List(ctx, metav1.ListOptions{})
	if err != nil {
		return s, fmt.Errorf("list service account templates: %w", err)
	}
	namespace, err := c.cfg.Client.Namespaces().Get(ctx, s.key.Namespace, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		s.namespace = nil
		return s, nil
	}
	if err != nil {
		return s, fmt.Errorf("read namespace %s: %w", s.key.Namespace, err)
	}
	var templates []*cache.Template
	for i := range list.Items {
		templates = append(templates, cache.NewTemplate(&list.Items[i]))
	}
	slices.SortFunc(templates, cache.CompareTemplates)
	s.namespace, s.claims, s.isInvalid = namespace, claimsFor(namespace, s.key.Name, templates), isInvalid(templates)
	return s, nil
}
