package controllers

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokencleaner"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokensecret"
	"github.com/sakeeper/sakeeper/pkg/kube/rights"
)

// roles returns the directories of manifests/rbac with the roles of the controllers.
func roles(enabled map[string]bool) []string {
	directories := []string{"controllers"}
	for _, name := range Names() {
		if enabled[name] {
			directories = append(directories, name)
		}
	}
	if enabled[nameTokenRequest] {
		directories = append(directories, nameTokenRequest+"-served")
	}
	if enabled[namePullSecretCopy] {
		directories = append(directories, namePullSecretCopy+"-sources", namePullSecretCopy+"-copies")
	}
	return directories
}

// expectRights makes the monitor review the right to request tokens. The other rights of that
// controller are those of the serviceaccount-token-controller too, so that without its role nothing is
// refused until a Secret requests a token.
func (p *parts) expectRights(ctx context.Context, monitor *rights.Monitor) error {
	if p.enabled[nameTokenRequest] && toolscache.WaitForCacheSync(ctx.Done(), p.namespaces.HasSynced) {
		monitor.Expect(requestTokens(), p.servedNamespaces)
	}
	return nil
}

// needs returns false for a right that no controller needs in a namespace any more: the namespace is
// gone, or tokens are not requested in it any more.
func (p *parts) needs(right rights.Right, target rights.Target) bool {
	if target.Namespace == "" || !p.namespaces.HasSynced() {
		return true
	}
	namespace, ok := cache.Get(p.namespaces, target.Namespace)
	switch {
	case !ok:
		return false
	case right == requestTokens(), right == patchSecrets() && !p.enabled[tokensecret.Name] && !p.enabled[tokencleaner.Name] && !p.enabled[namePullSecretCopy]:
		return p.options.TokenRequest.AllNamespaces || isServed(namespace)
	default:
		return true
	}
}

// requestTokens and patchSecrets return the rights that the token-request-controller needs in the
// namespaces that it serves.
func requestTokens() rights.Right {
	return rights.Right{Verb: "create", Resource: "serviceaccounts", Subresource: "token"}
}

func patchSecrets() rights.Right { return rights.Right{Verb: "patch", Resource: "secrets"} }

func isServed(namespace *corev1.Namespace) bool {
	return namespace.Labels[api.TokenRequestsLabel] == api.TokenRequestsAllowed
}

// servedNamespaces returns the namespaces whose label allows token requests, because the right may be
// bound in each of them only; if there is none yet, or all namespaces are served, it stands for all.
func (p *parts) servedNamespaces() []rights.Target {
	var targets []rights.Target
	for _, obj := range p.namespaces.GetStore().List() {
		namespace, ok := obj.(*corev1.Namespace)
		if ok && isServed(namespace) {
			targets = append(targets, rights.Target{Namespace: namespace.Name})
		}
	}
	if len(targets) == 0 || p.options.TokenRequest.AllNamespaces {
		return []rights.Target{{}}
	}
	return targets
}
