package controllers

import (
	"context"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/sakeeper/sakeeper/pkg/controllers/opaquesecret"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokenreferences"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokensecret"
	"github.com/sakeeper/sakeeper/pkg/signingkey"
	"github.com/sakeeper/sakeeper/pkg/token"
)

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
