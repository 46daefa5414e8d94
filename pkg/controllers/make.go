package controllers

import (
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/controllers/rootca"
	"github.com/sakeeper/sakeeper/pkg/controllers/serviceaccount"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokencleaner"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokengeneration"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokeninventory"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokenrequest"
	"github.com/sakeeper/sakeeper/pkg/kube"
)

const nameTokenRequest = tokenrequest.Name

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

func (p *parts) tokenInventory() (runnable, error) {
	client, _, err := p.clientsFor(tokeninventory.Name)
	if err != nil {
		return nil, err
	}
	return tokeninventory.New(tokeninventory.Config{
		Client:     client,
		Interval:   p.options.TokenInventory.Interval,
		Clock:      p.options.Clock,
		Registerer: p.options.Registerer,
	})
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
