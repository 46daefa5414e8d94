// Package opaquesecret records one event on each Secret of type Opaque that names a ServiceAccount
// as a token Secret does, in the annotation kubernetes.io/service-account.name. A user has left out
// the type; Kubernetes says nothing about it, no token ever comes, and the type of a Secret cannot
// be changed.
//
// Inputs: the metadata of Secrets of type Opaque that are created or changed from now on. Writes:
// events. RBAC: list and watch Secrets, which serviceaccount-token-controller has for token Secrets.
//
// # What it costs
//
// No selector finds an annotation. A list of all Opaque Secrets would cost a cluster with 100,000 of
// them a megabyte for every thousand at each start, so that there is none: one list of one object
// says what the version of now is, and a watch goes on from there. Secrets that do not change cost
// nothing; each change of an Opaque Secret costs its metadata, about a kilobyte on the wire, which is
// dropped at once. Data is never sent. What is kept is the UID of each Secret that has an event.
//
// So Secrets from before the start have no event until they are changed, nor do those of the seconds in
// which no controller ran or a broken watch had to begin anew. That does no harm: the event tells
// users what they have just done, and nothing depends on it.
package opaquesecret

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/metadata"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/kube"
)

const name = "opaque-secrets"

// Config is the input of [New]. Both fields are required.
type Config struct {
	Metadata metadata.Interface
	// Recorder records the events on Secrets.
	Recorder record.EventRecorder
}

// Controller records the events. Make one with [New].
type Controller struct{ cfg Config }

// New checks cfg. It sends no request.
func New(cfg Config) (*Controller, error) {
	if cfg.Metadata == nil || cfg.Recorder == nil {
		return nil, errors.New(name + ": Metadata and Recorder are required")
	}
	return &Controller{cfg: cfg}, nil
}

// Run watches until ctx ends, and returns nil. A watch that fails begins anew, with a growing delay.
func (c *Controller) Run(ctx context.Context) error {
	logger := klog.FromContext(ctx).WithName(name)
	reflector := toolscache.NewReflectorWithOptions(newFromNow(c.cfg.Metadata), &metav1.PartialObjectMetadata{},
		&eventStore{recorder: c.cfg.Recorder, logger: logger, secrets: map[types.UID]struct{}{}}, toolscache.ReflectorOptions{Name: name, Logger: &logger})
	reflector.RunWithContext(klog.NewContext(ctx, logger))
	return nil
}

// Ready returns true: nothing depends on these events.
func (c *Controller) Ready() bool { return true }

// fromNow lists no Secret, and watches the changes after that.
type fromNow struct{ *toolscache.ListWatch }

func newFromNow(client metadata.Interface) fromNow {
	secrets := client.Resource(corev1.SchemeGroupVersion.WithResource("secrets"))
	return fromNow{&toolscache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, _ metav1.ListOptions) (runtime.Object, error) {
			list, err := secrets.List(ctx, metav1.ListOptions{Limit: 1}) // for its version, which is that of all Secrets
			if err != nil {
				return nil, fmt.Errorf("list one secret: %w", err)
			}
			return &metav1.PartialObjectMetadataList{ListMeta: metav1.ListMeta{ResourceVersion: list.ResourceVersion}}, nil
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			options.FieldSelector = "type=" + string(corev1.SecretTypeOpaque)
			return secrets.Watch(ctx, options)
		},
	}}
}

// IsWatchListSemanticsUnSupported keeps the reflector from a watch that begins with all Secrets.
func (fromNow) IsWatchListSemanticsUnSupported() bool { return true }

// eventStore is where the reflector stores Secrets: it records events, and keeps the UIDs of those that
// have one. The reflector calls it from one goroutine.
type eventStore struct {
	recorder record.EventRecorder
	logger   klog.Logger
	secrets  map[types.UID]struct{}
}

// Add implements [toolscache.ReflectorStore].
func (s *eventStore) Add(obj any) error { return s.Update(obj) }

// Update implements [toolscache.ReflectorStore].
func (s *eventStore) Update(obj any) error {
	secret, ok := obj.(*metav1.PartialObjectMetadata)
	if !ok {
		return fmt.Errorf("unexpected %T", obj)
	}
	if !isMistaken(secret) {
		delete(s.secrets, secret.UID)
		return nil
	}
	if _, before := s.secrets[secret.UID]; before {
		return nil
	}
	s.secrets[secret.UID] = struct{}{}
	s.logger.V(2).Info("Found an opaque secret that names a service account", "secret", klog.KObj(secret))
	s.recorder.Eventf(kube.Reference("Secret", secret), corev1.EventTypeWarning, api.ReasonWrongSecretType,
		"This Secret is of type %s, and gets no token for the annotation %s: only one of type %s does. The type of a Secret cannot be changed; delete this one, and create one with the type",
		corev1.SecretTypeOpaque, corev1.ServiceAccountNameKey, corev1.SecretTypeServiceAccountToken)
	return nil
}

// isMistaken returns true if a Secret of type Opaque asks for a token in the way that only token
// Secrets can. A managed Secret gets one by its label.
func isMistaken(secret *metav1.PartialObjectMetadata) bool {
	_, names := secret.Annotations[corev1.ServiceAccountNameKey]
	return names && secret.DeletionTimestamp == nil && secret.Labels[api.TokenLabel] != api.TokenManaged
}

// Delete implements [toolscache.ReflectorStore].
func (s *eventStore) Delete(obj any) error {
	if secret, ok := obj.(*metav1.PartialObjectMetadata); ok {
		delete(s.secrets, secret.UID)
	}
	return nil
}

// Replace implements [toolscache.ReflectorStore]: a watch begins anew, and what was deleted meanwhile
// is not known, so that the UIDs of the past are dropped.
func (s *eventStore) Replace([]any, string) error {
	clear(s.secrets)
	return nil
}

// Resync implements [toolscache.ReflectorStore].
func (*eventStore) Resync() error { return nil }
