package controllers

import (
	"k8s.io/client-go/kubernetes"

	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/controllers/accounttemplate"
	"github.com/sakeeper/sakeeper/pkg/controllers/pullsecretcopy"
)

const namePullSecretCopy = pullsecretcopy.Name

func (p *parts) accountTemplate() (runnable, error) {
	client, err := kubernetes.NewForConfig(p.configFor(accounttemplate.Name))
	if err != nil {
		return nil, err
	}
	templates, _, err := p.templatesFor(accounttemplate.Name)
	if err != nil {
		return nil, err
	}
	accounts, err := own(p, true, cache.Accounts, client)
	if err != nil {
		return nil, err
	}
	return accounttemplate.New(accounttemplate.Config{
		Client:     client.CoreV1(),
		Namespaces: p.namespaces,
		Accounts:   accounts,
		Templates:  templates,
		Recorder:   p.recorder,
		Clock:      p.options.Clock,
		Workers:    defaultWorkers,
		Registerer: p.options.Registerer,
	})
}

func (p *parts) pullSecretCopy() (runnable, error) {
	client, meta, err := p.clientsFor(pullsecretcopy.Name)
	if err != nil {
		return nil, err
	}
	templates, templateClient, err := p.templatesFor(pullsecretcopy.Name)
	if err != nil {
		return nil, err
	}
	options := p.options.PullSecretCopy
	sources, err := pullsecretcopy.NewSources(meta, options.SourceNamespaces)
	if err != nil {
		return nil, err
	}
	copies, err := pullsecretcopy.NewCopies(meta, options.TargetNamespaces)
	if err != nil {
		return nil, err
	}
	p.informers = append(append(p.informers, sources.Informers()...), copies.Informers()...)
	return pullsecretcopy.New(pullsecretcopy.Config{
		Client:           client.CoreV1(),
		Metadata:         meta,
		Namespaces:       p.namespaces,
		Templates:        templates.Informer,
		TemplatesErr:     templates.Err,
		TemplateClient:   templateClient,
		SourceNamespaces: options.SourceNamespaces,
		Sources:          sources,
		Copies:           copies,
		Recorder:         p.recorder,
		Clock:            p.options.Clock,
		Workers:          defaultWorkers,
		Registerer:       p.options.Registerer,
	})
}

// templatesFor returns the templates, of which controllers share the informer, and a client of them for one
// controller.
func (p *parts) templatesFor(name string) (*accounttemplate.Templates, accounttemplate.Client, error) {
	client, err := accounttemplate.NewClient(p.configFor(name))
	if err != nil || p.templates != nil {
		return p.templates, client, err
	}
	if p.templates, err = accounttemplate.NewTemplates(client); err != nil {
		return nil, nil, err
	}
	p.informers = append(p.informers, p.templates.Informer)
	return p.templates, client, nil
}
