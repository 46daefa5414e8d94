package reach

import (
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// rule parses "verb,verb group/resource,group/resource name,name". The group of the core API is
// empty, as in "/pods".
func rule(text string) rbacv1.PolicyRule {
	fields := strings.Fields(text)
	parsed := rbacv1.PolicyRule{Verbs: strings.Split(fields[0], ",")}
	for full := range strings.SplitSeq(fields[1], ",") {
		group, resource, _ := strings.Cut(full, "/")
		parsed.APIGroups = append(parsed.APIGroups, group)
		parsed.Resources = append(parsed.Resources, resource)
	}
	if len(fields) > 2 {
		parsed.ResourceNames = strings.Split(fields[2], ",")
	}
	return parsed
}

// cluster is a set of objects under construction.
type cluster struct{ Objects }

// grant binds rules to a subject: in a namespace, or everywhere for "".
func (c *cluster) grant(namespace string, subject rbacv1.Subject, rules ...string) {
	name := "grant-" + string(rune('a'+len(c.RoleBindings)+len(c.ClusterRoleBindings)))
	role := rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}}
	for _, text := range rules {
		role.Rules = append(role.Rules, rule(text))
	}
	c.ClusterRoles = append(c.ClusterRoles, role)
	ref := rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name}
	if namespace == "" {
		c.ClusterRoleBindings = append(c.ClusterRoleBindings, rbacv1.ClusterRoleBinding{ObjectMeta: role.ObjectMeta, Subjects: []rbacv1.Subject{subject}, RoleRef: ref})
		return
	}
	c.RoleBindings = append(c.RoleBindings, rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Subjects: []rbacv1.Subject{subject}, RoleRef: ref,
	})
}

func subject(namespace, name string) rbacv1.Subject {
	return rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: name}
}

func reasonsOf(result Result, level Level) []string {
	var ids []string
	for _, f := range result.Findings {
		if f.Level == level {
			ids = append(ids, f.Reason)
		}
	}
	return ids
}

// TestReasons has rules for each row of the tables, apart from the tables. All of them together are
// the reason, and without any one of them it is gone.
func TestReasons(t *testing.T) {
	cases := map[string][]string{
		"escalate":                 {"escalate rbac.authorization.k8s.io/clusterroles", "patch rbac.authorization.k8s.io/clusterroles"},
		"bind":                     {"bind rbac.authorization.k8s.io/clusterroles", "create rbac.authorization.k8s.io/clusterrolebindings"},
		"impersonate-user":         {"impersonate /users"},
		"impersonate-group":        {"impersonate /groups system:masters", "impersonate /users somebody"},
		"webhooks":                 {"patch admissionregistration.k8s.io/validatingwebhookconfigurations one"},
		"mutating-policies":        {"create admissionregistration.k8s.io/mutatingadmissionpolicies", "create admissionregistration.k8s.io/mutatingadmissionpolicybindings"},
		"change-mutating-policies": {"update admissionregistration.k8s.io/mutatingadmissionpolicies"},
		"apiservices":              {"patch apiregistration.k8s.io/apiservices v1.example.com"},
		"approve-certificates": {
			"create certificates.k8s.io/certificatesigningrequests", "update certificates.k8s.io/certificatesigningrequests/approval",
			"approve certificates.k8s.io/signers kubernetes.io/kube-apiserver-client",
		},
		"nodes-proxy":             {"get /nodes/proxy"},
		"persistent-volumes":      {"create /persistentvolumes", "create /pods"},
		readsSecrets:              {"list /secrets"},
		"make-token-secrets":      {"create /secrets", "watch /secrets"},
		"pods":                    {"create /pods"},
		"workloads":               {"patch apps/deployments one"},
		"jobs":                    {"create batch/jobs"},
		"replication-controllers": {"update /replicationcontrollers"},
		"exec":                    {"create /pods/exec"},
		"debug":                   {"patch /pods/ephemeralcontainers"},
		"change-pods":             {"update /pods"},
		"request-tokens":          {"create /serviceaccounts/token"},
		"impersonate-accounts":    {"impersonate /serviceaccounts"},
		"bind-roles":              {"bind rbac.authorization.k8s.io/roles", "update rbac.authorization.k8s.io/rolebindings"},
		"escalate-roles":          {"escalate rbac.authorization.k8s.io/roles", "update rbac.authorization.k8s.io/roles"},
	}
	thief := Account{"ci", "thief"}
	reach := func(namespace string, rules []string) Result {
		c := &cluster{}
		for _, text := range rules { // a role each: several grants together may fulfil a row
			c.grant(namespace, subject("ci", "thief"), text)
		}
		return New(c.Objects).Reach(thief)
	}
	tables := newTables()
	for _, want := range slices.Concat(tables.cluster, tables.namespace) {
		t.Run(want.id, func(t *testing.T) {
			rules, ok := cases[want.id]
			if !ok {
				t.Fatal("no case")
			}
			if got := reach("", rules); got.Level != CanBecomeAdmin || !slices.Contains(reasonsOf(got, CanBecomeAdmin), want.id) {
				t.Errorf("got %+v", got)
			}
			for i := range rules {
				fewer := reach("", slices.Delete(slices.Clone(rules), i, i+1))
				if slices.Contains(reasonsOf(fewer, CanBecomeAdmin), want.id) {
					t.Errorf("also without %q: %+v", rules[i], fewer)
				}
			}
			inNamespace := slices.ContainsFunc(tables.namespace, func(r row) bool { return r.id == want.id })
			if got := reach("kube-system", rules); slices.Contains(reasonsOf(got, CanBecomeAdmin), want.id) != inNamespace {
				t.Errorf("in kube-system: %+v", got)
			}
			if got := reach("shop", rules); got.Level >= CanBecomeAdmin || inNamespace && !slices.Contains(reasonsOf(got, want.level), want.id) {
				t.Errorf("in another namespace, want %v: %+v", want.level, got)
			}
		})
		delete(cases, want.id)
	}
	if len(cases) > 0 {
		t.Errorf("cases without a row: %v", cases)
	}
}

func TestReach(t *testing.T) {
	user := func(name string) rbacv1.Subject { return rbacv1.Subject{Kind: rbacv1.UserKind, Name: name} }
	group := func(name string) rbacv1.Subject { return rbacv1.Subject{Kind: rbacv1.GroupKind, Name: name} }
	me := subject("ci", "thief")
	cases := map[string]struct {
		in         func(*cluster)
		want       Level
		wantReason string // of a finding with that level
	}{
		"nothing is granted":            {in: func(*cluster) {}, want: Nothing},
		"everything":                    {in: func(c *cluster) { c.grant("", me, "* */*") }, want: Admin, wantReason: "everything"},
		"everything, by user name":      {in: func(c *cluster) { c.grant("", user("system:serviceaccount:ci:thief"), "* */*") }, want: Admin, wantReason: "everything"},
		"everything, by all accounts":   {in: func(c *cluster) { c.grant("", group("system:serviceaccounts"), "* */*") }, want: Admin, wantReason: "everything"},
		"everything, by the namespace":  {in: func(c *cluster) { c.grant("", group("system:serviceaccounts:ci"), "* */*") }, want: Admin, wantReason: "everything"},
		"everything, by authentication": {in: func(c *cluster) { c.grant("", group("system:authenticated"), "* */*") }, want: Admin, wantReason: "everything"},
		"everything, another namespace": {in: func(c *cluster) { c.grant("", group("system:serviceaccounts:other"), "* */*") }, want: Nothing},
		"everything in one namespace":   {in: func(c *cluster) { c.grant("shop", me, "* */*") }, want: Secrets, wantReason: "pods"},
		"everything in kube-system":     {in: func(c *cluster) { c.grant("kube-system", me, "* */*") }, want: CanBecomeAdmin, wantReason: "pods"},
		"everything with one name":      {in: func(c *cluster) { c.grant("", me, "* */* one") }, want: CanBecomeAdmin, wantReason: "webhooks"},
		"one Secret":                    {in: func(c *cluster) { c.grant("shop", me, "get /secrets one") }, want: Secrets, wantReason: "named-secrets"},
		"a change of ConfigMaps":        {in: func(c *cluster) { c.grant("shop", me, "get,patch /configmaps") }, want: Write, wantReason: "write"},
		"a read of ConfigMaps":          {in: func(c *cluster) { c.grant("shop", me, "get /configmaps") }, want: Read, wantReason: "read"},
		"questions about itself":        {in: func(c *cluster) { c.grant("", me, "create authorization.k8s.io/selfsubjectaccessreviews") }, want: Nothing},
		"a binding to a missing role":   {in: func(c *cluster) { c.grant("", me, "* */*"); c.ClusterRoles = nil }, want: Nothing},
		"a subject without a namespace": {in: func(c *cluster) { c.grant("ci", subject("", "thief"), "get /configmaps") }, want: Read, wantReason: "read"},
		"a deployment in kube-system":   {in: func(c *cluster) { c.grant("kube-system", me, "patch apps/deployments coredns") }, want: CanBecomeAdmin, wantReason: "workloads"},
		"creating pods of a name":       {in: func(c *cluster) { c.grant("kube-system", me, "create /pods one") }, want: Write, wantReason: "write"},
		"binding one dangerous role": {in: func(c *cluster) {
			c.role("root", "* */*")
			c.grant("", me, "bind rbac.authorization.k8s.io/clusterroles root", "create rbac.authorization.k8s.io/clusterrolebindings")
		}, want: CanBecomeAdmin, wantReason: "bind-named-role"},
		"binding one harmless role": {in: func(c *cluster) {
			c.role("root", "get /pods")
			c.grant("", me, "bind rbac.authorization.k8s.io/clusterroles root", "create rbac.authorization.k8s.io/clusterrolebindings")
		}, want: Write, wantReason: "write"},
		"acting as one dangerous user":   {in: func(c *cluster) { c.grant("", user("root"), "* */*"); c.grant("", me, "impersonate /users root") }, want: CanBecomeAdmin, wantReason: "impersonate-named-user"},
		"acting as one harmless user":    {in: func(c *cluster) { c.grant("", me, "impersonate /users root") }, want: Write, wantReason: "write"},
		"pods beside a dangerous one":    {in: func(c *cluster) { c.grant("", subject("shop", "root"), "* */*"); c.grant("shop", me, "create /pods") }, want: CanBecomeAdmin, wantReason: "pods"},
		"Secrets beside a dangerous one": {in: func(c *cluster) { c.grant("", subject("shop", "root"), "* */*"); c.grant("shop", me, "list /secrets") }, want: Secrets, wantReason: readsSecrets},
		"Secrets with a dangerous token": {in: func(c *cluster) {
			c.grant("", subject("shop", "root"), "* */*")
			c.WithTokens = []Account{{"shop", "root"}}
			c.grant("shop", me, "list /secrets")
		}, want: CanBecomeAdmin, wantReason: readsSecrets},
		"Secrets, and tokens unknown": {in: func(c *cluster) {
			c.grant("", subject("shop", "root"), "* */*")
			c.TokensUnknown = true
			c.grant("shop", me, "list /secrets")
		}, want: CanBecomeAdmin, wantReason: readsSecrets},
		"a token of a dangerous one": {in: func(c *cluster) {
			c.grant("", subject("shop", "root"), "* */*")
			c.grant("shop", me, "create /serviceaccounts/token root")
		}, want: CanBecomeAdmin, wantReason: "named-account"},
		"a token of another namesake": {in: func(c *cluster) {
			c.grant("", subject("shop", "root"), "* */*")
			c.grant("ci", me, "create /serviceaccounts/token root")
		}, want: Write, wantReason: "write"},
		"over two others": {in: func(c *cluster) {
			c.grant("", subject("shop", "root"), "* */*")
			c.grant("shop", subject("tools", "middle"), "create /pods")
			c.grant("tools", me, "create /pods/exec")
		}, want: CanBecomeAdmin, wantReason: "exec"},
		"constrained impersonation": {in: func(c *cluster) {
			c.grant("", me, "impersonate:user-info authentication.k8s.io/users", "impersonate-on:user-info:list /secrets")
		}, want: CanBecomeAdmin, wantReason: readsSecrets},
		"constrained impersonation without anybody": {in: func(c *cluster) { c.grant("", me, "impersonate-on:user-info:list /secrets") }, want: Write, wantReason: "write"},
		"not all could be read":                     {in: func(c *cluster) { c.grant("shop", me, "get /secrets one"); c.Incomplete = true }, want: Unknown},
		"not all could be read, all is said":        {in: func(c *cluster) { c.grant("", me, "* */*"); c.Incomplete = true }, want: Admin, wantReason: "everything"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			c := &cluster{Objects{Accounts: []Account{{"ci", "thief"}, {"shop", "root"}, {"tools", "middle"}}}}
			tc.in(c)
			got := New(c.Objects).Reach(Account{"ci", "thief"})
			if got.Level != tc.want || tc.wantReason != "" && !slices.Contains(reasonsOf(got, tc.want), tc.wantReason) {
				t.Errorf("got %v %+v, want %v because of %q", got.Level, got.Findings, tc.want, tc.wantReason)
			}
		})
	}
}

// role adds a ClusterRole without a binding.
func (c *cluster) role(name string, rules ...string) {
	role := rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}}
	for _, text := range rules {
		role.Rules = append(role.Rules, rule(text))
	}
	c.ClusterRoles = append(c.ClusterRoles, role)
}
