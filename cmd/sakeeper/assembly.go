package main

import (
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/controllers/rootca"
	"github.com/sakeeper/sakeeper/pkg/controllers/serviceaccount"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokencleaner"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokengeneration"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokenrequest"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokensecret"
	"github.com/sakeeper/sakeeper/pkg/signingkey"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// assembly is what the controllers are made from, and what comes of it.
type assembly struct {
	*controllersConfig

	recorder record.EventRecorder

	registry        prometheus.Registerer
	namespaces      toolscache.TypedSharedIndexInformer[*corev1.Namespace]
	serviceAccounts toolscache.TypedSharedIndexInformer[*corev1.ServiceAccount]
	tokenSecrets    toolscache.TypedSharedIndexInformer[*cache.TokenSecret]
	rootCAs         toolscache.TypedSharedIndexInformer[*cache.RootCA]
	// managedSecrets are nil while no controller keeps tokens in them.
	managedSecrets toolscache.TypedSharedIndexInformer[*cache.ManagedSecret]

	// recent spares us to verify what we have just signed.
	recent *token.Cache
	// gate is what writers of tokens go through; nil while there are none.
	gate        *signingkey.Check
	controllers map[string]controller
}

// assemble makes the enabled controllers and the informers that they watch.
// Nothing is started, and the API server is not asked.
func assemble(cfg *controllersConfig, recorder record.EventRecorder, registry prometheus.Registerer) (*assembly, error) {
	a := &assembly{
		controllersConfig: cfg, recorder: recorder, registry: registry,
		controllers: map[string]controller{}, recent: token.NewCache(1000),
	}
	client, err := kubernetes.NewForConfig(cfg.rest)
	if err != nil {
		return nil, err
	}
	if a.namespaces, err = cache.Namespaces(client); err != nil {
		return nil, err
	}
	if a.serviceAccounts, err = cache.ServiceAccounts(client); err != nil {
		return nil, err
	}
	if a.tokenSecrets, err = cache.TokenSecrets(client, a.inspect()); err != nil {
		return nil, err
	}
	if a.rootCAs, err = cache.RootCAs(client); err != nil {
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
func (a *assembly) inspect() cache.Inspect {
	if a.keys == nil {
		return nil
	}
	return token.NewVerifierWithCache(a.recent, a.keys.Get).Inspect
}

// restFor is the client configuration of one controller, which audit logs name.
func (a *assembly) restFor(name string) *rest.Config {
	config := rest.CopyConfig(a.rest)
	config.UserAgent += "/" + name
	return config
}

// newGate makes the gate, which must hear of a new key before the controllers do.
func (a *assembly) newGate() (*signingkey.Check, error) {
	client, err := kubernetes.NewForConfig(a.restFor(signingkey.Name))
	if err != nil {
		return nil, err
	}
	signs := a.signs
	if signs == nil {
		signs = token.NewSignerWithCache(a.recent, a.keys.Get)
	}
	gate, err := signingkey.New(signingkey.Config{
		Signer:       signs,
		TokenReviews: client.AuthenticationV1().TokenReviews(),
		Secrets:      client.CoreV1(),
		Recorder:     a.recorder,
		Clock:        clock.RealClock{},
		Registerer:   a.registry,
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
		Registerer:      a.registry,
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
		TokenReviews:    client.AuthenticationV1().TokenReviews(),
		Recorder:        a.recorder,
		Clock:           clock.RealClock{},
		Resign:          tokensecret.Resign(a.options.resign),
		ResignQPS:       a.options.resignQPS,
		Workers:         a.options.tokenSyncs,
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
		Registerer: a.registry,
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
		Registerer:      a.registry,
	})
}

// watched are the informers that the enabled controllers need; all of them look at
// namespaces.
func (a *assembly) watched() []toolscache.SharedIndexInformer {
	list := []toolscache.SharedIndexInformer{a.namespaces}
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
