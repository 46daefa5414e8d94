package e2e

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

// right is a requested or a granted permission. In a granted one, an empty namespace or name
// stands for all.
type right struct {
	account         string // ServiceAccount in our namespace
	verb            string
	group, resource string // the resource with its subresource
	namespace, name string
}

func (r right) String() string {
	return strings.TrimRight(fmt.Sprintf("%s: %s %s %s/%s", r.account, r.verb, strings.TrimSuffix(r.resource+"."+r.group, "."), r.namespace, r.name), "/ ")
}

// covers returns true if the granted right allows the requested one.
func (r right) covers(asked right) bool {
	return (r.namespace == "" || r.namespace == asked.namespace) && (r.name == "" || r.name == asked.name) && r.kind() == asked.kind()
}

// kind returns the right without namespace and name.
func (r right) kind() right {
	r.namespace, r.name = "", ""
	return r
}

// exercised are the rights that our ServiceAccounts requested in all tests of this package, and
// whether they were ever allowed.
type exercised struct {
	mu    sync.Mutex
	asked map[right]bool
}

// rights are those of the tests of this process.
var rights = exercised{asked: map[right]bool{}}

// note adds the audit log of a control plane that is being stopped.
func (e *exercised) note(cp *controlplane.ControlPlane) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	const ours = "system:serviceaccount:" + controlplane.Namespace + ":"
	return cp.Audit.All(func(r controlplane.Request) {
		account, ok := strings.CutPrefix(r.User.Username, ours)
		if !ok || r.Object.Resource == "" {
			return
		}
		asked := right{account, r.Verb, r.Object.Group, r.Object.Resource, r.Object.Namespace, r.Object.Name}
		if r.Object.Subresource != "" {
			asked.resource += "/" + r.Object.Subresource
		}
		e.asked[asked] = e.asked[asked] || r.Annotations["authorization.k8s.io/decision"] == "allow"
	})
}

// check compares the requests with the roles of the manifests. Rights that are never used can
// be found only after a run of all tests.
func (e *exercised) check() error {
	granted, err := grantedRights()
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	lacking, used := map[right]bool{}, map[right]bool{}
	for asked, allowed := range e.asked {
		found := false
		for _, r := range granted[asked.kind()] {
			if r.covers(asked) {
				found = true
				used[r] = used[r] || allowed
			}
		}
		if !found && !everybodyMay(asked) { // tests may remove a granted right for a while
			lacking[asked] = true
		}
	}
	var errs []error
	for _, asked := range sorted(lacking) {
		errs = append(errs, fmt.Errorf("no role grants %v", asked))
	}
	if everyTestRan() {
		for _, r := range sorted(inVain(granted, used)) {
			errs = append(errs, fmt.Errorf("no request uses %v", r))
		}
	}
	return errors.Join(errs...)
}

// everybodyMay returns true for what system:basic-user grants to every authenticated user.
func everybodyMay(asked right) bool {
	return asked.verb == "create" && (asked.resource == "selfsubjectaccessreviews" || asked.resource == "selfsubjectreviews")
}

func inVain(granted map[right][]right, used map[right]bool) map[right]bool {
	vain := map[right]bool{}
	for _, list := range granted {
		for _, r := range list {
			watch := r
			watch.verb = "watch"
			// client-go lists by a watch, unless the API server does not support that.
			if !used[r] && (r.verb != "list" || !used[watch]) {
				vain[r] = true
			}
		}
	}
	return vain
}

func everyTestRan() bool {
	return flag.Lookup("test.run").Value.String() == "" && flag.Lookup("test.skip").Value.String() == ""
}

func sorted(rights map[right]bool) []right {
	return slices.SortedFunc(maps.Keys(rights), func(a, b right) int { return strings.Compare(a.String(), b.String()) })
}

// grantedRights are the rights of all roles of the manifests, by kind, for the accounts to
// which they are bound.
func grantedRights() (map[right][]right, error) {
	files, err := filepath.Glob("../manifests/rbac/*/role.yaml")
	if err != nil {
		return nil, err
	}
	roles := roles{rules: map[rbacv1.RoleRef]map[string][]rbacv1.PolicyRule{}}
	for _, path := range files {
		if err := roles.read(path); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	granted := map[right][]right{}
	for _, b := range roles.bindings {
		home := b.namespace
		if b.role.Kind == "ClusterRole" {
			home = ""
		}
		rules := roles.rules[b.role][home]
		if len(rules) == 0 {
			return nil, fmt.Errorf("%s %s is bound to, but does not exist", b.role.Kind, b.role.Name)
		}
		for _, rule := range rules {
			for _, r := range expand(b.account, b.namespace, rule) {
				granted[r.kind()] = append(granted[r.kind()], r)
			}
		}
	}
	return granted, nil
}

func expand(account, namespace string, rule rbacv1.PolicyRule) []right {
	names := rule.ResourceNames
	if len(names) == 0 {
		names = []string{""}
	}
	var all []right
	for _, group := range rule.APIGroups {
		for _, resource := range rule.Resources {
			for _, verb := range rule.Verbs {
				for _, name := range names {
					all = append(all, right{account, verb, group, resource, namespace, name})
				}
			}
		}
	}
	return all
}

// roles are the rules by role and, for a Role, its namespace.
type roles struct {
	rules    map[rbacv1.RoleRef]map[string][]rbacv1.PolicyRule
	bindings []binding
}

type binding struct {
	role      rbacv1.RoleRef
	namespace string // empty: all
	account   string
}

func (r *roles) read(path string) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	documents, err := testkit.Documents(content)
	if err != nil {
		return err
	}
	for _, document := range documents {
		object, _, err := scheme.Codecs.UniversalDeserializer().Decode(document, nil, nil)
		if err != nil {
			return err
		}
		switch o := object.(type) {
		case *rbacv1.Role:
			r.add("Role", o.Name, o.Namespace, o.Rules)
		case *rbacv1.ClusterRole:
			r.add("ClusterRole", o.Name, "", o.Rules)
		case *rbacv1.RoleBinding:
			r.bindings = append(r.bindings, binding{o.RoleRef, o.Namespace, o.Subjects[0].Name})
		case *rbacv1.ClusterRoleBinding:
			r.bindings = append(r.bindings, binding{o.RoleRef, "", o.Subjects[0].Name})
		}
	}
	return nil
}

func (r *roles) add(kind, name, namespace string, rules []rbacv1.PolicyRule) {
	ref := rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: kind, Name: name}
	if r.rules[ref] == nil {
		r.rules[ref] = map[string][]rbacv1.PolicyRule{}
	}
	r.rules[ref][namespace] = rules
}
