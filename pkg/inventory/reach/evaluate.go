package reach

import (
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
)

// Request is what is to be authorized: a request for a resource, or, if Path is not empty, for
// another URL.
type Request struct {
	Verb string
	// Group, Resource and Subresource are those of the URL. Name is empty for requests that name no
	// object, such as list and create. Namespace is empty for resources without namespaces, and for
	// requests about all namespaces.
	Group, Resource, Subresource, Namespace, Name string
	// Path is the path of a URL that is no resource.
	Path string
}

// Allows returns true if RBAC allows the request to a user in groups, and the grant that does.
func (p *Policy) Allows(user string, groups []string, request Request) (Grant, bool) {
	for _, g := range p.grants(user, groups) {
		if g.Namespace != "" && (g.Namespace != request.Namespace || request.Path != "") {
			continue
		}
		if slices.ContainsFunc(g.Rules, func(rule rbacv1.PolicyRule) bool { return ruleAllows(&rule, request) }) {
			return g.Grant, true
		}
	}
	return Grant{}, false
}

func ruleAllows(rule *rbacv1.PolicyRule, r Request) bool {
	if !matches(rule.Verbs, r.Verb) {
		return false
	}
	if r.Path != "" {
		return slices.ContainsFunc(rule.NonResourceURLs, func(pattern string) bool { return pathMatches(pattern, r.Path) })
	}
	return matches(rule.APIGroups, r.Group) && resourceMatches(rule.Resources, r.Resource, r.Subresource) &&
		(len(rule.ResourceNames) == 0 || slices.Contains(rule.ResourceNames, r.Name))
}

// matches returns true if list has the value or an asterisk.
func matches(list []string, value string) bool {
	return slices.Contains(list, value) || slices.Contains(list, "*")
}

// resourceMatches knows three forms: "*" for everything, the exact resource with its subresource,
// and "*/scale" for that subresource of all resources. "pods/*" is none of them: it matches only a
// request that says just that.
func resourceMatches(list []string, resource, subresource string) bool {
	if subresource == "" {
		return matches(list, resource)
	}
	return matches(list, resource+"/"+subresource) || slices.Contains(list, "*/"+subresource)
}

// pathMatches returns true for an equal path, and for a pattern with asterisks at its end if the
// path begins with the rest.
func pathMatches(pattern, path string) bool {
	prefix := strings.TrimRight(pattern, "*")
	return pattern == path || prefix != pattern && strings.HasPrefix(path, prefix)
}
