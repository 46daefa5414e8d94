package controllers

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"

	"github.com/sakeeper/sakeeper/pkg/cabundle"
	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/controllers/accounttemplate"
	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/signingkey"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// recentTokens bounds how many tokens are remembered that this process signed, so that they are
// not verified when they come back by the watch.
const recentTokens = 1000

// runnable is what all controllers have in common.
type runnable interface {
	Run(ctx context.Context) error
	Ready() bool
}

// parts are the controllers of a suite with the informers that they share.
type parts struct {
	options  Options
	enabled  map[string]bool
	recorder record.EventRecorder
	keys     Source[*keys.Set]
	ca       Source[cabundle.Bundle]

	namespaces      toolscache.TypedSharedIndexInformer[*corev1.Namespace]
	serviceAccounts toolscache.TypedSharedIndexInformer[*corev1.ServiceAccount]
	tokenSecrets    toolscache.TypedSharedIndexInformer[*cache.TokenSecret]
	rootCAs         toolscache.TypedSharedIndexInformer[*cache.RootCA]
	managedSecrets  toolscache.TypedSharedIndexInformer[*cache.ManagedSecret]
	templates       *accounttemplate.Templates // nil if no controller needs them
	// confirmLive: at least one of the first two is the caller's.
	confirmLive bool
	// informers are those that the suite runs itself. The first ones, as many as started says, run.
	informers []toolscache.SharedIndexInformer
	started   int

	recent      *token.Cache
	check       *signingkey.Check // nil if no controller makes tokens
	checking    bool              // it is running
	controllers map[string]runnable
	ran         atomic.Bool
}

// newParts makes what the enabled controllers share. Nothing is started, and the API server is not asked.
func newParts(options Options, client kubernetes.Interface, recorder record.EventRecorder, keySource Source[*keys.Set], ca Source[cabundle.Bundle]) (*parts, error) {
	p := &parts{
		options: options, recorder: recorder, keys: keySource, ca: ca,
		recent: token.NewCache(recentTokens), controllers: map[string]runnable{},
		confirmLive: options.Namespaces != nil || options.ServiceAccounts != nil,
	}
	p.enabled, _ = options.Enabled() // New has reported the error
	if err := p.makeCheck(); err != nil {
		return nil, err
	}
	return p, p.makeInformers(client)
}

// makeControllers makes the enabled controllers. The informers may be running: a controller is then
// told of every object that they have, as at a start.
func (p *parts) makeControllers() error {
	for _, d := range descriptors() {
		if !p.enabled[d.name] {
			continue
		}
		controller, err := d.make(p)
		if err != nil {
			return err
		}
		p.controllers[d.name] = controller
	}
	return nil
}

// configFor is the client configuration of one controller, which audit logs name.
func (p *parts) configFor(name string) *rest.Config {
	config := rest.CopyConfig(p.options.Config)
	config.UserAgent += "/" + name
	return config
}

func (p *parts) clientsFor(name string) (*kubernetes.Clientset, metadata.Interface, error) {
	client, errClient := kubernetes.NewForConfig(p.configFor(name))
	meta, errMetadata := metadata.NewForConfig(p.configFor(name))
	return client, meta, errors.Join(errClient, errMetadata)
}

// start runs, in group, the informers that do not run yet, and the signing-key check, so that tokens are
// verified with the keys that the API server publishes.
func (p *parts) start(ctx context.Context, group *errgroup.Group) {
	if p.check != nil && !p.checking {
		p.checking = true
		group.Go(func() error { return p.check.Run(ctx) })
	}
	for _, informer := range p.informers[p.started:] {
		p.started++
		group.Go(func() error {
			informer.RunWithContext(ctx)
			return nil
		})
	}
}

// run works until ctx ends.
func (p *parts) run(ctx context.Context) error {
	p.ran.Store(true)
	group, ctx := errgroup.WithContext(ctx)
	p.start(ctx, group)
	for _, controller := range p.controllers {
		group.Go(func() error { return controller.Run(ctx) })
	}
	return group.Wait()
}

// discard ends what was made and never run: work queues have goroutines from the start.
func (p *parts) discard() {
	if p.ran.Load() {
		return
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	for _, controller := range p.controllers {
		_ = controller.Run(ended)
	}
}

// whyNotReady returns what keeps a controller from becoming ready.
func whyNotReady(c runnable) error {
	if c, ok := c.(interface{ Err() error }); ok {
		if err := c.Err(); err != nil {
			return err
		}
	}
	return errStarting
}

// ready returns what is not ready.
func (p *parts) ready() error {
	for _, name := range Names() {
		if c := p.controllers[name]; c != nil && !c.Ready() {
			return fmt.Errorf("%s: %w", name, whyNotReady(c))
		}
	}
	if p.check != nil {
		return p.check.Ready()
	}
	return nil
}
