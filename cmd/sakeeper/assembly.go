package main

import (
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/canary"
	"github.com/sakeeper/sakeeper/pkg/contention"
	"github.com/sakeeper/sakeeper/pkg/controllers/rootca"
	"github.com/sakeeper/sakeeper/pkg/controllers/serviceaccount"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokencleaner"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokengeneration"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokenrequest"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokensecret"
	"github.com/sakeeper/sakeeper/pkg/informers"
	"github.com/sakeeper/sakeeper/pkg/loop"
	"github.com/sakeeper/sakeeper/pkg/token"
	"github.com/sakeeper/sakeeper/pkg/tokenreview"
)

// assembly is what the controllers are made from, and what comes of it.
type assembly struct {
	*controllersConfig

	recorder record.EventRecorder

	registry        prometheus.Registerer
	metrics         *loop.Metrics
	contention      *contention.Metrics
	reviews         *tokenreview.Metrics
	namespaces      cache.TypedSharedIndexInformer[*corev1.Namespace]
	serviceAccounts cache.TypedSharedIndexInformer[*corev1.ServiceAccount]
	tokenSecrets    cache.TypedSharedIndexInformer[*informers.TokenSecret]
	rootCAs         cache.TypedSharedIndexInformer[*informers.RootCA]
	// managedSecrets are nil while no controller keeps tokens in them.
	managedSecrets cache.TypedSharedIndexInformer[*informers.ManagedSecret]

	// recent spares us to verify what we have just signed.
	recent *token.Recent
	// gate is what writers of tokens go through; nil while there are none.
	gate        *canary.Gate
	controllers map[string]controller
}

// assemble makes the enabled controllers and the informers that they watch.
// Nothing is started, and the API server is not asked.
func assemble(cfg *controllersConfig, recorder record.EventRecorder, registry prometheus.Registerer) (*assembly, error) {
	a := &assembly{
		controllersConfig: cfg, recorder: recorder, registry: registry,
		metrics: loop.NewMetrics(registry), contention: contention.NewMetrics(registry), reviews: tokenreview.NewMetrics(registry),
		controllers: map[string]controller{}, recent: token.NewRecent(1000),
	}
	client, err := kubernetes.NewForConfig(cfg.rest)
	if err != nil {
		return nil, err
	}
	if a.namespaces, err = informers.Namespaces(client); err != nil {
		return nil, err
	}
	if a.serviceAccounts, err = informers.ServiceAccounts(client); err != nil {
		return nil, err
	}
	if a.tokenSecrets, err = informers.TokenSecrets(client, a.inspect()); err != nil {
		return nil, err
	}
	if a.rootCAs, err = informers.RootCAs(client); err != nil {
		return nil, err
	}
	if cfg.keys != nil {
		if a.gate, err = a.newGate(); err != nil {
			return nil, err
		}
	}
	for _, d := range descriptors() {
		if !cfg.enabled[d.name] {
			continue
		}
		if a.controllers[d.name], err = d.make(a); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// inspect reads tokens with the keys of the moment. Without keys nobody asks whose
// tokens are.
func (a *assembly) inspect() informers.Inspect {
	if a.keys == nil {
		return nil
	}
	return token.NewVerifierWith(a.recent, a.keys.Get).Inspect
}

// restFor is the client configuration of one controller, which audit logs name.
func (a *assembly) restFor(name string) *rest.Config {
	config := rest.CopyConfig(a.rest)
	config.UserAgent += "/" + name
	return config
}

// newGate makes the gate, which must hear of a new key before the controllers do.
func (a *assembly) newGate() (*canary.Gate, error) {
	client, err := kubernetes.NewForConfig(a.restFor(canary.Name))
	if err != nil {
		return nil, err
	}
	signs := a.signs
	if signs == nil {
		signs = token.NewSignerWith(a.recent, a.keys.Get)
	}
	gate, err := canary.New(canary.Config{
		Signer:   signs,
		Reviewer: tokenreview.New(client.AuthenticationV1().TokenReviews(), "canary", a.reviews),
		Secrets:  client.CoreV1(),
		Recorder: a.recorder,
		Clock:    clock.RealClock{},
		Metrics:  a.metrics,
	})
	if err != nil {
		return nil, err
	}
	a.keys.OnChange(gate.Reset)
	return gate, nil
}

func (a *assembly) serviceAccount() (controller, error) {
	client, err := kubernetes.NewForConfig(a.restFor(serviceaccount.Name))
	if err != nil {
		return nil, err
	}
	return serviceaccount.New(serviceaccount.Config{
		Client:          client.CoreV1(),
		Namespaces:      a.namespaces,
		ServiceAccounts: a.serviceAccounts,
		Names:           a.options.serviceAccounts,
		Recorder:        a.recorder,
		Clock:           clock.RealClock{},
		Metrics:         a.metrics,
		Contention:      a.contention,
	})
}

func (a *assembly) tokenSecret() (controller, error) {
	client, err := kubernetes.NewForConfig(a.restFor(tokensecret.Name))
	if err != nil {
		return nil, err
	}
	meta, err := metadata.NewForConfig(a.restFor(tokensecret.Name))
	if err != nil {
		return nil, err
	}
	c, err := tokensecret.New(tokensecret.Config{
		Client:          client.CoreV1(),
		Metadata:        meta,
		Namespaces:      a.namespaces,
		Secrets:         a.tokenSecrets,
		ServiceAccounts: a.serviceAccounts,
		Tokens:          a.gate,
		Keys:            a.keys.Get,
		CA:              a.ca.Get,
		Reviewer:        tokenreview.New(client.AuthenticationV1().TokenReviews(), "repair", a.reviews),
		Recorder:        a.recorder,
		Clock:           clock.RealClock{},
		Resign:          tokensecret.Resign(a.options.resign),
		ResignQPS:       a.options.resignQPS,
		Workers:         a.options.tokenSyncs,
		Metrics:         a.metrics,
		Contention:      a.contention,
		Registerer:      a.registry,
	})
	if err != nil {
		return nil, err
	}
	a.ca.OnChange(c.EnqueueAll)
	a.keys.OnChange(c.EnqueueAll)
	return c, nil
}

func (a *assembly) rootCA() (controller, error) {
	client, err := kubernetes.NewForConfig(a.restFor(rootca.Name))
	if err != nil {
		return nil, err
	}
	c, err := rootca.New(rootca.Config{
		Client:     client.CoreV1(),
		Namespaces: a.namespaces,
		RootCAs:    a.rootCAs,
		CA:         a.ca.Get,
		Recorder:   a.recorder,
		Clock:      clock.RealClock{},
		Metrics:    a.metrics,
		Contention: a.contention,
	})
	if err != nil {
		return nil, err
	}
	a.ca.OnChange(c.EnqueueAll)
	return c, nil
}

func (a *assembly) tokenCleaner() (controller, error) {
	client, err := kubernetes.NewForConfig(a.restFor(tokencleaner.Name))
	if err != nil {
		return nil, err
	}
	return tokencleaner.New(tokencleaner.Config{
		Client:          client.CoreV1(),
		Namespaces:      a.namespaces,
		Secrets:         a.tokenSecrets,
		ServiceAccounts: a.serviceAccounts,
		Period:          a.options.cleanUpPeriod,
		Interval:        a.options.cleanUpInterval,
		DryRun:          a.options.cleanUpDryRun,
		Recorder:        a.recorder,
		Clock:           clock.RealClock{},
		Metrics:         a.metrics,
		Contention:      a.contention,
		Registerer:      a.registry,
	})
}

func (a *assembly) tokenGeneration() (controller, error) {
	client, err := kubernetes.NewForConfig(a.restFor(tokengeneration.Name))
	if err != nil {
		return nil, err
	}
	meta, err := metadata.NewForConfig(a.restFor(tokengeneration.Name))
	if err != nil {
		return nil, err
	}
	return tokengeneration.New(tokengeneration.Config{
		Mode:            tokengeneration.Mode(a.options.generate),
		Client:          client.CoreV1(),
		Metadata:        meta,
		Namespaces:      a.namespaces,
		Secrets:         a.tokenSecrets,
		ServiceAccounts: a.serviceAccounts,
		Tokens:          a.gate,
		CA:              a.ca.Get,
		Recorder:        a.recorder,
		Clock:           clock.RealClock{},
		Metrics:         a.metrics,
		Contention:      a.contention,
	})
}

// watched are the informers that the enabled controllers need; all of them look at
// namespaces.
func (a *assembly) watched() []cache.SharedIndexInformer {
	list := []cache.SharedIndexInformer{a.namespaces}
	aboutTokens := a.enabled[tokensecret.Name] || a.enabled[tokencleaner.Name] || a.enabled[tokengeneration.Name]
	if a.enabled[serviceaccount.Name] || a.enabled[tokenrequest.Name] || aboutTokens {
		list = append(list, a.serviceAccounts)
	}
	if a.enabled[tokenrequest.Name] {
		list = append(list, a.managedSecrets)
	}
	if aboutTokens {
		list = append(list, a.tokenSecrets)
	}
	if a.enabled[rootca.Name] {
		list = append(list, a.rootCAs)
	}
	return list
}
