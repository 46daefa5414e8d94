package reach

import (
	"cmp"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
)

// Account is the name of a ServiceAccount.
type Account struct{ Namespace, Name string }

const (
	userPrefix  = "system:serviceaccount:"
	groupPrefix = "system:serviceaccounts"
	// systemNamespace has the accounts of the control plane, which may do nearly everything.
	systemNamespace = "kube-system"
)

// User returns the name by which the API server knows the account.
func (a Account) User() string { return userPrefix + a.Namespace + ":" + a.Name }

// Groups returns the groups that the API server puts the account into.
func (a Account) Groups() []string {
	return []string{groupPrefix, groupPrefix + ":" + a.Namespace, "system:authenticated"}
}

// String returns "namespace/name".
func (a Account) String() string { return a.Namespace + "/" + a.Name }

// Compare orders accounts by namespace and name.
func (a Account) Compare(b Account) int {
	return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
}

// accountOf returns the account of a user name; false if it is not that of an account.
func accountOf(user string) (Account, bool) {
	rest, ok := strings.CutPrefix(user, userPrefix)
	namespace, name, found := strings.Cut(rest, ":")
	return Account{namespace, name}, ok && found
}

// Objects are what the API server authorizes by.
type Objects struct {
	Roles               []rbacv1.Role
	ClusterRoles        []rbacv1.ClusterRole
	RoleBindings        []rbacv1.RoleBinding
	ClusterRoleBindings []rbacv1.ClusterRoleBinding
	// Accounts are all ServiceAccounts: a right to act as an account that is not among them is
	// worth nothing yet.
	Accounts []Account
	// WithTokens are the accounts with a token in a Secret of their namespace. If TokensUnknown is
	// true, every account may have one.
	WithTokens    []Account
	TokensUnknown bool
	// Incomplete is true if some of these objects could not be read.
	Incomplete bool
}

// Grant is a role that a binding grants.
type Grant struct {
	// Namespace is where the grant holds: that of the RoleBinding. Empty for a ClusterRoleBinding,
	// which grants the role in all namespaces.
	Namespace string `json:"namespace,omitempty"`
	// Binding is the name of the RoleBinding or ClusterRoleBinding.
	Binding string `json:"binding"`
	// RoleKind and Role name the role: "Role" or "ClusterRole".
	RoleKind string `json:"roleKind"`
	Role     string `json:"role"`
	// Subject is the subject of the binding that applies, such as "Group system:authenticated".
	Subject string `json:"subject"`
	// Rules are those of the role; empty if it does not exist.
	Rules []rbacv1.PolicyRule `json:"-"`
}

// String names the binding and the role, as "ClusterRoleBinding ci (ClusterRole edit)".
func (g Grant) String() string {
	if g.Namespace == "" {
		return "ClusterRoleBinding " + g.Binding + " (" + g.RoleKind + " " + g.Role + ")"
	}
	return "RoleBinding " + g.Namespace + "/" + g.Binding + " (" + g.RoleKind + " " + g.Role + ")"
}

// grant is a Grant with what is computed once for each role.
type grant struct {
	Grant

	facts *facts
}

// Policy answers questions about a fixed set of objects.
type Policy struct {
	byUser, byGroup map[string][]grant
	clusterRoles    map[string]*facts
	tables          *tables
	incomplete      bool

	// byName has all accounts by name.
	byName map[string][]Account
	// withTokens are the accounts with token Secrets, unless tokensUnknown is true.
	withTokens    map[Account]bool
	tokensUnknown bool
	// dangerous are the accounts that can become cluster-admin, dangerousIn those of a namespace.
	dangerous   map[Account]bool
	dangerousIn map[string][]Account
}

// New returns the policy of objects, which must not be changed afterwards.
func New(objects Objects) *Policy {
	p := &Policy{
		byUser: map[string][]grant{}, byGroup: map[string][]grant{}, clusterRoles: map[string]*facts{},
		tables: newTables(), incomplete: objects.Incomplete, tokensUnknown: objects.TokensUnknown,
		byName: map[string][]Account{}, withTokens: map[Account]bool{}, dangerous: map[Account]bool{}, dangerousIn: map[string][]Account{},
	}
	for i := range objects.ClusterRoles {
		role := &objects.ClusterRoles[i]
		p.clusterRoles[role.Name] = newFacts(role.Rules, p.tables)
	}
	roles := map[Account]*facts{} // a Role has a namespace and a name, as an account
	for i := range objects.Roles {
		role := &objects.Roles[i]
		roles[Account{role.Namespace, role.Name}] = newFacts(role.Rules, p.tables)
	}
	for i := range objects.ClusterRoleBindings {
		b := &objects.ClusterRoleBindings[i]
		if b.RoleRef.Kind == "ClusterRole" {
			p.bind(Grant{Binding: b.Name, RoleKind: b.RoleRef.Kind, Role: b.RoleRef.Name}, p.clusterRoles[b.RoleRef.Name], b.Subjects)
		}
	}
	for i := range objects.RoleBindings {
		b := &objects.RoleBindings[i]
		role := p.clusterRoles[b.RoleRef.Name]
		if b.RoleRef.Kind == "Role" {
			role = roles[Account{b.Namespace, b.RoleRef.Name}]
		}
		p.bind(Grant{Namespace: b.Namespace, Binding: b.Name, RoleKind: b.RoleRef.Kind, Role: b.RoleRef.Name}, role, b.Subjects)
	}
	for _, account := range objects.Accounts {
		p.byName[account.Name] = append(p.byName[account.Name], account)
	}
	for _, account := range objects.WithTokens {
		p.withTokens[account] = true
	}
	p.findDangerous(objects.Accounts)
	return p
}

// bind adds a grant for each subject. A binding to a role that does not exist (nil) is kept, with
// no rules: it grants whatever is created under that name.
func (p *Policy) bind(g Grant, role *facts, subjects []rbacv1.Subject) {
	if role == nil {
		role = newFacts(nil, p.tables)
	}
	g.Rules = role.rules
	for _, subject := range subjects {
		g.Subject = subject.Kind + " " + subject.Name
		switch subject.Kind {
		case rbacv1.UserKind:
			p.byUser[subject.Name] = append(p.byUser[subject.Name], grant{g, role})
		case rbacv1.GroupKind:
			p.byGroup[subject.Name] = append(p.byGroup[subject.Name], grant{g, role})
		case rbacv1.ServiceAccountKind:
			account := Account{cmp.Or(subject.Namespace, g.Namespace), subject.Name}
			if account.Namespace == "" { // the API server does not accept it
				continue
			}
			g.Subject = subject.Kind + " " + account.String()
			p.byUser[account.User()] = append(p.byUser[account.User()], grant{g, role})
		}
	}
}

// grants returns what is granted to a user and its groups, a binding with several fitting subjects
// once.
func (p *Policy) grants(user string, groups []string) []grant {
	all := slices.Clone(p.byUser[user])
	for _, group := range groups {
		all = append(all, p.byGroup[group]...)
	}
	slices.SortStableFunc(all, func(a, b grant) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Binding, b.Binding))
	})
	return slices.CompactFunc(all, func(a, b grant) bool { return a.Namespace == b.Namespace && a.Binding == b.Binding })
}

// Grants returns the roles that are granted to an account: as a subject, as a user, and through its
// groups.
func (p *Policy) Grants(account Account) []Grant {
	var all []Grant
	for _, g := range p.grants(account.User(), account.Groups()) {
		all = append(all, g.Grant)
	}
	return all
}
