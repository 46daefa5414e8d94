package reach

import "strings"

// need is a right that a way to more rights consists of: one of the verbs on one of the resources.
type need struct {
	verbs     []string
	group     string
	resources []string
	// names are names of which one must be allowed. Empty: the right must not be limited by
	// resourceNames, unless anyNames is true.
	names    []string
	anyNames bool
	// anywhere: a grant in any namespace is enough, although the others must hold elsewhere.
	anywhere bool
}

// reason is a row of the tables: an account that has all needs has the level.
type reason struct {
	id    string
	text  string
	level Level
	needs []need
}

const (
	rbacGroup      = "rbac.authorization.k8s.io"
	admissionGroup = "admissionregistration.k8s.io"
	csrGroup       = "certificates.k8s.io"
	constrained    = "authentication.k8s.io" // the group of constrained impersonation
)

const (
	verbGet         = "get"
	verbList        = "list"
	verbWatch       = "watch"
	verbCreate      = "create"
	verbEscalate    = "escalate"
	verbBind        = "bind"
	verbImpersonate = "impersonate"

	secrets         = "secrets"
	pods            = "pods"
	serviceAccounts = "serviceaccounts"
	users           = "users"
	roles           = "roles"
	clusterRoles    = "clusterroles"
)

func reads() []string   { return []string{verbGet, verbList, verbWatch} }
func changes() []string { return []string{"update", "patch"} }
func write() []string   { return append(changes(), verbCreate) }

// clusterReasons are ways to become cluster-admin that a right in all namespaces opens.
func clusterReasons() []reason {
	return []reason{
		{verbEscalate, "may change ClusterRoles to hold any right (escalate)", CanBecomeAdmin, []need{
			{verbs: []string{verbEscalate}, group: rbacGroup, resources: []string{clusterRoles}},
			{verbs: changes(), group: rbacGroup, resources: []string{clusterRoles}},
		}},
		{verbBind, "may bind any ClusterRole to itself (bind)", CanBecomeAdmin, []need{
			{verbs: []string{verbBind}, group: rbacGroup, resources: []string{clusterRoles}},
			{verbs: write(), group: rbacGroup, resources: []string{"clusterrolebindings"}},
		}},
		{"impersonate-user", "may act as any user (impersonate)", CanBecomeAdmin, []need{
			{verbs: []string{verbImpersonate}, resources: []string{users}},
		}},
		{"impersonate-group", "may act as a member of system:masters (impersonate)", CanBecomeAdmin, []need{
			{verbs: []string{verbImpersonate}, resources: []string{"groups"}, names: []string{"system:masters"}},
			{verbs: []string{verbImpersonate}, resources: []string{users, serviceAccounts}, anyNames: true, anywhere: true},
		}},
		{"webhooks", "may send what the API server admits to a webhook of its own", CanBecomeAdmin, []need{
			{verbs: write(), group: admissionGroup, resources: []string{"mutatingwebhookconfigurations", "validatingwebhookconfigurations"}, anyNames: true},
		}},
		{"mutating-policies", "may change what the API server admits by policies of its own", CanBecomeAdmin, []need{
			{verbs: write(), group: admissionGroup, resources: []string{"mutatingadmissionpolicies"}},
			{verbs: write(), group: admissionGroup, resources: []string{"mutatingadmissionpolicybindings"}},
		}},
		{"change-mutating-policies", "may change policies by which the API server changes objects", CanBecomeAdmin, []need{
			{verbs: changes(), group: admissionGroup, resources: []string{"mutatingadmissionpolicies"}, anyNames: true},
		}},
		{"apiservices", "may have the API server forward requests, with the rights of their users, to a server of its own", CanBecomeAdmin, []need{
			{verbs: write(), group: "apiregistration.k8s.io", resources: []string{"apiservices"}, anyNames: true},
		}},
		{"approve-certificates", "may approve a client certificate for any user", CanBecomeAdmin, []need{
			{verbs: []string{verbCreate}, group: csrGroup, resources: []string{"certificatesigningrequests"}},
			{verbs: changes(), group: csrGroup, resources: []string{"certificatesigningrequests/approval"}},
			{verbs: []string{"approve"}, group: csrGroup, resources: []string{"signers"}, names: []string{"kubernetes.io/kube-apiserver-client", "kubernetes.io/*"}},
		}},
		{"nodes-proxy", "may run commands in any pod through the kubelets (nodes/proxy)", CanBecomeAdmin, []need{
			{verbs: []string{verbGet, verbCreate}, resources: []string{"nodes/proxy"}, anyNames: true},
		}},
		{"persistent-volumes", "may mount directories of nodes into pods (PersistentVolumes)", CanBecomeAdmin, []need{
			{verbs: []string{verbCreate}, resources: []string{"persistentvolumes"}},
			{verbs: []string{verbCreate}, resources: []string{pods}, anywhere: true},
		}},
	}
}

// namespaceReasons are ways to the accounts and the Secrets of a namespace. In kube-system, and
// where an account can become cluster-admin, they are ways to become cluster-admin. Elsewhere they
// have the level of their row.
func namespaceReasons() []reason {
	return []reason{
		{readsSecrets, "may read Secrets", Secrets, []need{
			{verbs: reads(), resources: []string{secrets}},
		}},
		{"make-token-secrets", "may make a token Secret for any account, and read it", Secrets, []need{
			{verbs: []string{verbCreate}, resources: []string{secrets}},
			{verbs: reads(), resources: []string{secrets}},
		}},
		{"pods", "may run pods with any account and any Secret", Secrets, []need{
			{verbs: []string{verbCreate}, resources: []string{pods}},
		}},
		{"workloads", "may run pods with any account and any Secret, by a workload", Secrets, []need{
			{verbs: write(), group: "apps", resources: []string{"deployments", "daemonsets", "statefulsets", "replicasets"}, anyNames: true},
		}},
		{"jobs", "may run pods with any account and any Secret, by a job", Secrets, []need{
			{verbs: write(), group: "batch", resources: []string{"jobs", "cronjobs"}, anyNames: true},
		}},
		{"replication-controllers", "may run pods with any account and any Secret, by a ReplicationController", Secrets, []need{
			{verbs: write(), resources: []string{"replicationcontrollers"}, anyNames: true},
		}},
		{"exec", "may run commands in pods", Secrets, []need{
			{verbs: []string{verbGet, verbCreate}, resources: []string{"pods/exec", "pods/attach"}},
		}},
		{"debug", "may add containers to pods", Secrets, []need{
			{verbs: changes(), resources: []string{"pods/ephemeralcontainers"}},
		}},
		{"change-pods", "may change the images of pods", Secrets, []need{
			{verbs: changes(), resources: []string{pods}},
		}},
		{"request-tokens", "may request tokens of accounts", Write, []need{
			{verbs: []string{verbCreate}, resources: []string{"serviceaccounts/token"}},
		}},
		{"impersonate-accounts", "may act as accounts (impersonate)", Write, []need{
			{verbs: []string{verbImpersonate}, resources: []string{serviceAccounts}},
		}},
		{"bind-roles", "may bind any role to itself (bind)", Secrets, []need{
			{verbs: []string{verbBind}, group: rbacGroup, resources: []string{roles, clusterRoles}},
			{verbs: write(), group: rbacGroup, resources: []string{"rolebindings"}},
		}},
		{"escalate-roles", "may change Roles to hold any right (escalate)", Secrets, []need{
			{verbs: []string{verbEscalate}, group: rbacGroup, resources: []string{roles}},
			{verbs: changes(), group: rbacGroup, resources: []string{roles}},
		}},
	}
}

const readsSecrets = "read-secrets"

// mode is a mode of constrained impersonation: an account that may act as another user, and may make
// a request while it does. A row of the tables is then a way to more rights if its verbs are granted
// with the prefix.
type mode struct {
	name   string
	prefix string
	as     need
}

func modes() []mode {
	return []mode{
		{name: "", prefix: ""},
		{"serviceaccount", "impersonate-on:serviceaccount:", need{verbs: []string{"impersonate:serviceaccount"}, group: constrained, resources: []string{serviceAccounts}}},
		{"user-info", "impersonate-on:user-info:", need{verbs: []string{"impersonate:user-info"}, group: constrained, resources: []string{users}}},
	}
}

// isHarmless returns true for the resources that every account may use for questions about itself,
// and for public certificates.
func isHarmless(group, resource string) bool {
	switch group + "/" + resource {
	case "authorization.k8s.io/selfsubjectaccessreviews", "authorization.k8s.io/selfsubjectrulesreviews",
		"authentication.k8s.io/selfsubjectreviews", "certificates.k8s.io/clustertrustbundles":
		return true
	}
	return false
}

// isHarmlessPath returns true for the URLs that every account may read.
func isHarmlessPath(path string) bool {
	for _, prefix := range []string{"/api", "/healthz", "/livez", "/readyz", "/openapi", "/version", "/.well-known/", "/openid/"} {
		if strings.HasPrefix(path, prefix) {
			return true
		}
	}
	return false
}
