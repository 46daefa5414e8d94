package reach

import (
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
)

// facts are what a role allows, wherever it is granted. They are computed once for each role, and
// then joined for each account.
type facts struct {
	rules []rbacv1.PolicyRule
	// admin is true if one rule allows everything that is a resource.
	admin bool
	// plain is Write, Read or Nothing: what the rules allow, apart from the tables.
	plain Level
	// needs has a bit for each need of the tables that the rules fulfil, for each mode.
	needs []uint64
	// as has a bit for each mode whose identities the rules allow to take.
	as uint64
	// namedSecrets is true if single Secrets may be read.
	namedSecrets bool
	// accounts and users are those that may be acted as, by name; roles are those that may be bound.
	accounts, users, roles []string
}

func newFacts(rules []rbacv1.PolicyRule, t *tables) *facts {
	f := &facts{rules: rules, plain: Nothing, needs: make([]uint64, len(t.modes))}
	for i := range rules {
		rule := &rules[i]
		f.admin = f.admin || isAdmin(rule)
		f.plain = max(f.plain, plainLevel(rule))
		f.addNames(rule)
		for m, mode := range t.modes {
			if mode.prefix == "" || allows(rule, mode.as, "") {
				f.as |= 1 << m
			}
			for n, need := range t.needs {
				if allows(rule, need, mode.prefix) {
					f.needs[m] |= 1 << n
				}
			}
		}
	}
	return f
}

// allows returns true if the rule fulfils the need, whose verbs are granted with a prefix.
func allows(rule *rbacv1.PolicyRule, n need, prefix string) bool {
	named := len(rule.ResourceNames) > 0
	if !matches(rule.APIGroups, n.group) || named && !n.anyNames && !intersects(rule.ResourceNames, n.names) {
		return false
	}
	for _, full := range n.resources {
		resource, subresource, _ := strings.Cut(full, "/")
		if !resourceMatches(rule.Resources, resource, subresource) {
			continue
		}
		for _, verb := range n.verbs {
			// A request that creates an object has no name that a rule could allow.
			nameless := verb == verbCreate && subresource == ""
			if matches(rule.Verbs, prefix+verb) && (!named || !nameless) {
				return true
			}
		}
	}
	return false
}

func intersects(a, b []string) bool {
	return slices.ContainsFunc(a, func(value string) bool { return slices.Contains(b, value) })
}

func isAdmin(rule *rbacv1.PolicyRule) bool {
	return slices.Contains(rule.Verbs, "*") && slices.Contains(rule.APIGroups, "*") && slices.Contains(rule.Resources, "*") && len(rule.ResourceNames) == 0
}

// addNames notes the objects that a rule with resourceNames names, if they are worth something.
func (f *facts) addNames(rule *rbacv1.PolicyRule) {
	if len(rule.ResourceNames) == 0 {
		return
	}
	may := func(verb, group, resource, subresource string) bool {
		return matches(rule.Verbs, verb) && matches(rule.APIGroups, group) && resourceMatches(rule.Resources, resource, subresource)
	}
	if slices.ContainsFunc(reads(), func(verb string) bool { return may(verb, "", secrets, "") }) {
		f.namedSecrets = true
	}
	if may(verbCreate, "", serviceAccounts, "token") || may(verbImpersonate, "", serviceAccounts, "") {
		f.accounts = append(f.accounts, rule.ResourceNames...)
	}
	if may(verbImpersonate, "", users, "") {
		f.users = append(f.users, rule.ResourceNames...)
	}
	if may(verbBind, rbacGroup, clusterRoles, "") {
		f.roles = append(f.roles, rule.ResourceNames...)
	}
}

func plainLevel(rule *rbacv1.PolicyRule) Level {
	level := Nothing
	if len(rule.Verbs) == 0 {
		return level
	}
	for _, path := range rule.NonResourceURLs {
		if !isHarmlessPath(path) {
			level = Read
		}
	}
	for _, group := range rule.APIGroups {
		for _, resource := range rule.Resources {
			switch {
			case isHarmless(group, resource):
			case slices.ContainsFunc(rule.Verbs, isWrite):
				return Write
			default:
				level = Read
			}
		}
	}
	return level
}

func isWrite(verb string) bool {
	switch verb {
	case verbGet, verbList, verbWatch, "proxy":
		return false
	}
	return true
}
