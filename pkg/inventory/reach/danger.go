package reach

import "slices"

// tables are the tables of reasons with a number for each need.
type tables struct {
	cluster, namespace []row
	modes              []mode
	needs              []need
	// writesRoleBindings and writesClusterRoleBindings are the bits of those needs.
	writesRoleBindings, writesClusterRoleBindings uint64
}

type row struct {
	reason

	firstNeed int
}

func newTables() *tables {
	t := &tables{modes: modes()}
	number := func(reasons []reason) (rows []row) {
		for _, r := range reasons {
			rows = append(rows, row{r, len(t.needs)})
			t.needs = append(t.needs, r.needs...)
		}
		return rows
	}
	t.cluster, t.namespace = number(clusterReasons()), number(namespaceReasons())
	for i, n := range t.needs {
		switch {
		case n.group != rbacGroup || !slices.Contains(n.verbs, verbCreate):
		case slices.Contains(n.resources, "rolebindings"):
			t.writesRoleBindings |= 1 << i
		case slices.Contains(n.resources, "clusterrolebindings"):
			t.writesClusterRoleBindings |= 1 << i
		}
	}
	return t
}

// findDangerous finds the accounts that can become cluster-admin. One that can act as a dangerous
// account is dangerous itself, so it is repeated until no more are found.
func (p *Policy) findDangerous(accounts []Account) {
	sorted := slices.SortedFunc(slices.Values(accounts), Account.Compare)
	for changed := true; changed; {
		changed = false
		for _, account := range sorted {
			if p.dangerous[account] || p.worst(account, p.grants(account.User(), account.Groups())) < CanBecomeAdmin {
				continue
			}
			p.dangerous[account], changed = true, true
			p.dangerousIn[account.Namespace] = append(p.dangerousIn[account.Namespace], account)
		}
	}
}

// worst returns the highest level of what the grants allow to an account; at least Nothing.
func (p *Policy) worst(account Account, grants []grant) Level {
	level := Nothing
	for _, g := range grants {
		if g.facts.admin && g.Namespace == "" {
			return Admin
		}
	}
	for _, f := range p.tableFindings(account, grants) {
		level = max(level, f.Level)
	}
	for _, f := range p.namedFindings(grants) {
		level = max(level, f.Level)
	}
	return level
}

// danger returns an account by which a row is a way to become cluster-admin in a namespace, other
// than the account itself. known is true, without an account, in kube-system.
func (p *Policy) danger(self Account, namespace, reason string) (via Account, known bool) {
	if namespace == "" || namespace == systemNamespace {
		return Account{}, true
	}
	for _, account := range p.dangerousIn[namespace] {
		if account != self && (reason != readsSecrets || p.tokensUnknown || p.withTokens[account]) {
			return account, true
		}
	}
	return Account{}, false
}

// namedFindings are those of rules with resourceNames: they are worth as much as what they name.
func (p *Policy) namedFindings(grants []grant) []Finding {
	var found []Finding
	for _, g := range grants {
		for _, name := range g.facts.accounts {
			found = append(found, p.asAccounts(g, name)...)
		}
		for _, user := range g.facts.users {
			if g.Namespace == "" && p.userIsDangerous(user) {
				found = append(found, Finding{CanBecomeAdmin, "impersonate-named-user", "may act as user " + user + ", who can become cluster-admin", "", []Grant{g.Grant}})
			}
		}
		for _, role := range g.facts.roles {
			found = append(found, p.bindsRole(grants, g, role)...)
		}
	}
	return found
}

// asAccounts are the findings for a right to act as accounts of a name.
func (p *Policy) asAccounts(g grant, name string) []Finding {
	var found []Finding
	for _, account := range p.byName[name] {
		if !g.holdsIn(account.Namespace) {
			continue
		}
		finding := Finding{Write, "named-account", "may act as account " + account.String(), account.Namespace, []Grant{g.Grant}}
		if p.dangerous[account] {
			finding.Level = CanBecomeAdmin
			finding.Text += ", which can become cluster-admin"
		}
		found = append(found, finding)
	}
	return found
}

// userIsDangerous returns true for a user who is no account and has, by bindings, a right of the
// tables. What the named may do by other names is not followed.
func (p *Policy) userIsDangerous(user string) bool {
	if _, isAccount := accountOf(user); isAccount {
		return false // the API server asks for the right to impersonate the ServiceAccount
	}
	grants := p.grants(user, []string{"system:authenticated"})
	return hasAdmin(grants) || slices.ContainsFunc(p.tableFindings(Account{}, grants), func(f Finding) bool { return f.Level >= CanBecomeAdmin })
}

func hasAdmin(grants []grant) bool {
	return slices.ContainsFunc(grants, func(g grant) bool { return g.facts.admin && g.Namespace == "" })
}

// bindsRole are the findings for a right to bind one ClusterRole, in all namespaces or in one.
func (p *Policy) bindsRole(grants []grant, g grant, role string) []Finding {
	facts := p.clusterRoles[role]
	if facts == nil {
		return nil
	}
	var found []Finding
	for _, namespace := range namespacesOf(grants) {
		bindings := p.tables.writesRoleBindings
		if namespace == "" {
			bindings = p.tables.writesClusterRoleBindings
		}
		writer := slices.IndexFunc(grants, func(w grant) bool { return w.holdsIn(namespace) && w.facts.needs[0]&bindings != 0 })
		if writer < 0 || !g.holdsIn(namespace) {
			continue
		}
		bound := []grant{{Grant{Namespace: namespace, Binding: "new", RoleKind: "ClusterRole", Role: role}, facts}}
		if !hasAdmin(bound) && !slices.ContainsFunc(p.tableFindings(Account{}, bound), func(f Finding) bool { return f.Level >= CanBecomeAdmin }) {
			continue
		}
		found = append(found, Finding{CanBecomeAdmin, "bind-named-role", "may bind ClusterRole " + role + " to itself (bind)", namespace, []Grant{g.Grant, grants[writer].Grant}})
	}
	return found
}

// Reasons returns the ids of all rows of the tables, in their order. [Finding.Reason] is one of them,
// or of a few others for single grants.
func Reasons() []string {
	var ids []string
	for _, r := range slices.Concat(clusterReasons(), namespaceReasons()) {
		ids = append(ids, r.id)
	}
	return ids
}
