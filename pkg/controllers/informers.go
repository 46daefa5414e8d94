package controllers

import (
	"errors"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/controllers/rootca"
	"github.com/sakeeper/sakeeper/pkg/controllers/serviceaccount"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokencleaner"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokengeneration"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokenrequest"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokensecret"
	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/token"
)

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
