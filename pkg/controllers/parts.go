package controllers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/cabundle"
	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/controllers/opaquesecret"
	"github.com/sakeeper/sakeeper/pkg/controllers/rootca"
	"github.com/sakeeper/sakeeper/pkg/controllers/serviceaccount"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokencleaner"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokengeneration"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokenreferences"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokenrequest"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokensecret"
	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/kube"
	"github.com/sakeeper/sakeeper/pkg/signingkey"
	"github.com/sakeeper/sakeeper/pkg/token"
)

const nameTokenRequest = tokenrequest.Name

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
	// confirmLive: at least one of the first two is the caller's.
	confirmLive bool
	// informers are those that the suite runs itself.
	informers []toolscache.SharedIndexInformer

	recent      *token.Cache
	check       *signingkey.Check // nil if no controller makes tokens
	controllers map[string]runnable
	ran         atomic.Bool
}

// newParts makes the enabled controllers. Nothing is started, and the API server is not asked.
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
	if err := p.makeInformers(client); err != nil {
		return nil, err
	}
	for _, d := range descriptors() {
		if !p.enabled[d.name] {
			continue
		}
		controller, err := d.make(p)
		if err != nil {
			p.discard()
			return nil, err
		}
		p.controllers[d.name] = controller
	}
	return p, nil
}

// makeInformers makes those that the enabled controllers need; all of them look at namespaces.
func (p *parts) makeInformers(client kubernetes.Interface) error {
	legacyTokens := p.enabled[tokensecret.Name] || p.enabled[tokencleaner.Name] || p.enabled[tokengeneration.Name]
	accounts := legacyTokens || p.enabled[serviceaccount.Name] || p.enabled[tokenrequest.Name]
	var errs [5]error
	if p.options.Namespaces != nil {
		p.namespaces = toolscache.NewTypedSharedIndexInformer[*corev1.Namespace](p.options.Namespaces)
	} else {
		p.namespaces, errs[0] = own(p, true, cache.Namespaces, client)
	}
	if p.options.ServiceAccounts != nil {
		p.serviceAccounts = toolscache.NewTypedSharedIndexInformer[*corev1.ServiceAccount](p.options.ServiceAccounts)
		errs[1] = cache.IndexByNamespace(p.options.ServiceAccounts)
	} else {
		p.serviceAccounts, errs[1] = own(p, accounts, cache.ServiceAccounts, client)
	}
	p.tokenSecrets, errs[2] = own(p, legacyTokens, func(client kubernetes.Interface) (toolscache.TypedSharedIndexInformer[*cache.TokenSecret], error) {
		return cache.TokenSecrets(client, p.inspect())
	}, client)
	p.rootCAs, errs[3] = own(p, p.enabled[rootca.Name], cache.RootCAs, client)
	return errors.Join(errs[:]...)
}

// own makes an informer that the suite runs itself, if it is needed.
func own[T toolscache.Object](p *parts, needed bool, newInformer func(kubernetes.Interface) (toolscache.TypedSharedIndexInformer[T], error), client kubernetes.Interface) (toolscache.TypedSharedIndexInformer[T], error) {
	var none toolscache.TypedSharedIndexInformer[T]
	if !needed {
		return none, nil
	}
	informer, err := newInformer(client)
	if err != nil {
		return none, err
	}
	p.informers = append(p.informers, informer)
	return informer, nil
}

// inspect reads tokens with the known keys of the moment. Without keys, no controller needs to know whose
// tokens are.
func (p *parts) inspect() cache.Inspect {
	if p.check == nil {
		return nil
	}
	return token.NewVerifierWithCache(p.recent, func() *keys.Set {
		set, _ := p.check.Known()
		return set
	}).Inspect
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

// makeCheck makes the signing-key check, which must hear of a new key before the controllers do.
func (p *parts) makeCheck() error {
	if p.keys == nil {
		return nil
	}
	client, _, err := p.clientsFor(signingkey.Name)
	if err != nil {
		return err
	}
	signs := signerOf(p.keys)
	if signs == nil {
		signs = token.NewSignerWithCache(p.recent, p.keys.Get)
	}
	p.check, err = signingkey.New(signingkey.Config{
		Client:     client.CoreV1().RESTClient(),
		Keys:       p.keys.Get,
		Signer:     signs,
		Unverified: p.options.SigningKeyUnverified,
		Recorder:   p.recorder,
		Process:    p.options.Process,
		Clock:      p.options.Clock,
		Registerer: p.options.Registerer,
	})
	if err != nil {
		return err
	}
	p.keys.OnChange(p.check.Reset)
	return nil
}

func (p *parts) serviceAccount() (runnable, error) {
	client, _, err := p.clientsFor(serviceaccount.Name)
	if err != nil {
		return nil, err
	}
	return serviceaccount.New(serviceaccount.Config{
		Client:          client.CoreV1(),
		Namespaces:      p.namespaces,
		ServiceAccounts: p.serviceAccounts,
		Names:           p.options.ServiceAccount.Names,
		Recorder:        p.recorder,
		Clock:           p.options.Clock,
		Workers:         defaultWorkers,
		Registerer:      p.options.Registerer,
	})
}

func (p *parts) tokenSecret() (runnable, error) {
	client, meta, err := p.clientsFor(tokensecret.Name)
	if err != nil {
		return nil, err
	}
	references, err := tokenreferences.New(tokenreferences.Config{
		Client:          client.CoreV1(),
		Metadata:        meta,
		Secrets:         p.tokenSecrets,
		ServiceAccounts: p.serviceAccounts,
		ConfirmLive:     p.confirmLive,
		Recorder:        p.recorder,
		Clock:           p.options.Clock,
		Workers:         p.options.TokenSecret.Workers,
		Registerer:      p.options.Registerer,
	})
	if err != nil {
		return nil, err
	}
	c, err := tokensecret.New(tokensecret.Config{
		Client:          client.CoreV1(),
		Namespaces:      p.namespaces,
		Secrets:         p.tokenSecrets,
		ServiceAccounts: p.serviceAccounts,
		ConfirmLive:     p.confirmLive,
		Tokens:          p.check,
		CA:              p.ca.Get,
		TokenReviews:    client.AuthenticationV1().TokenReviews(),
		Recorder:        p.recorder,
		Clock:           p.options.Clock,
		Resign:          p.options.TokenSecret.Resign,
		ResignQPS:       p.options.TokenSecret.ResignQPS,
		Workers:         p.options.TokenSecret.Workers,
		Registerer:      p.options.Registerer,
	})
	if err != nil {
		return nil, err
	}
	mistaken, err := opaquesecret.New(opaquesecret.Config{Metadata: meta, Recorder: p.recorder})
	if err != nil {
		return nil, err
	}
	p.ca.OnChange(c.EnqueueAll)
	p.keys.OnChange(c.EnqueueAll)
	p.check.OnChange(c.EnqueueAll)
	return together{c, references, mistaken}, nil
}

// together are controllers that users know as one.
type together []runnable

// Run runs all of them until ctx ends.
func (all together) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, c := range all {
		group.Go(func() error { return c.Run(ctx) })
	}
	return group.Wait()
}

// Ready returns true if all of them are ready.
func (all together) Ready() bool {
	return !slices.ContainsFunc(all, func(c runnable) bool { return !c.Ready() })
}

func (p *parts) rootCA() (runnable, error) {
	client, _, err := p.clientsFor(rootca.Name)
	if err != nil {
		return nil, err
	}
	c, err := rootca.New(rootca.Config{
		Client:     client.CoreV1(),
		Namespaces: p.namespaces,
		RootCAs:    p.rootCAs,
		CA:         p.ca.Get,
		Recorder:   p.recorder,
		Clock:      p.options.Clock,
		Workers:    defaultWorkers,
		Registerer: p.options.Registerer,
	})
	if err != nil {
		return nil, err
	}
	p.ca.OnChange(c.EnqueueAll)
	return c, nil
}

func (p *parts) tokenCleaner() (runnable, error) {
	client, _, err := p.clientsFor(tokencleaner.Name)
	if err != nil {
		return nil, err
	}
	return tokencleaner.New(tokencleaner.Config{
		Client:          client.CoreV1(),
		Namespaces:      p.namespaces,
		Secrets:         p.tokenSecrets,
		ServiceAccounts: p.serviceAccounts,
		ConfirmLive:     p.confirmLive,
		Period:          p.options.TokenCleaner.Period,
		Interval:        p.options.TokenCleaner.Interval,
		DryRun:          p.options.TokenCleaner.DryRun,
		Recorder:        p.recorder,
		Clock:           p.options.Clock,
		Registerer:      p.options.Registerer,
	})
}

func (p *parts) tokenGeneration() (runnable, error) {
	client, meta, err := p.clientsFor(tokengeneration.Name)
	if err != nil {
		return nil, err
	}
	c, err := tokengeneration.New(tokengeneration.Config{
		Mode:            p.options.TokenGeneration.Mode,
		Client:          client.CoreV1(),
		Metadata:        meta,
		Namespaces:      p.namespaces,
		Secrets:         p.tokenSecrets,
		ServiceAccounts: p.serviceAccounts,
		ConfirmLive:     p.confirmLive,
		Tokens:          p.check,
		CA:              p.ca.Get,
		Recorder:        p.recorder,
		Clock:           p.options.Clock,
		Workers:         defaultWorkers,
		Registerer:      p.options.Registerer,
	})
	if err != nil {
		return nil, err
	}
	p.check.OnChange(c.EnqueueAll)
	return c, nil
}

func (p *parts) tokenRequest() (runnable, error) {
	config := p.configFor(tokenrequest.Name)
	// Its first list tells what the server's time is, before anything is decided on it.
	serverClock := kube.FollowServerClock(config, p.options.Clock)
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	if p.managedSecrets, err = own(p, true, cache.ManagedSecrets, client); err != nil {
		return nil, err
	}
	c, err := tokenrequest.New(tokenrequest.Config{
		Client:          client.CoreV1(),
		Namespaces:      p.namespaces,
		Secrets:         p.managedSecrets,
		ServiceAccounts: p.serviceAccounts,
		CA:              p.ca.Get,
		AllNamespaces:   p.options.TokenRequest.AllNamespaces,
		PublicServer:    p.options.TokenRequest.PublicServer,
		Recorder:        p.recorder,
		Clock:           serverClock,
		Monotonic:       clock.RealClock{},
		Workers:         defaultWorkers,
		Registerer:      p.options.Registerer,
	})
	if err != nil {
		return nil, err
	}
	p.ca.OnChange(c.EnqueueAll)
	return c, nil
}

// run works until ctx ends.
func (p *parts) run(ctx context.Context) error {
	p.ran.Store(true)
	group, ctx := errgroup.WithContext(ctx)
	for _, informer := range p.informers {
		group.Go(func() error {
			informer.RunWithContext(ctx)
			return nil
		})
	}
	if p.check != nil {
		group.Go(func() error { return p.check.Run(ctx) })
	}
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

// ready returns what is not ready.
func (p *parts) ready() error {
	for _, name := range Names() {
		if c := p.controllers[name]; c != nil && !c.Ready() {
			return fmt.Errorf("%s: %w", name, errStarting)
		}
	}
	if p.check != nil {
		return p.check.Ready()
	}
	return nil
}
