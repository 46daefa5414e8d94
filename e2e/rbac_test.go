package e2e

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

// right is what a rule grants, less the names of objects.
type right struct {
	account         string // in our namespace
	verb            string
	group, resource string // the resource with its subresource
}

func (r right) String() string {
	return fmt.Sprintf("%s: %s %s", r.account, r.verb, strings.TrimSuffix(r.resource+"."+r.group, "."))
}

// exercised is what our identities asked of all API servers of this package's tests.
type exercised struct {
	mu             sync.Mutex
	allowed, asked map[right]bool
}

// rights are those of the tests of this process.
var rights = exercised{allowed: map[right]bool{}, asked: map[right]bool{}}

// note reads the audit log of a control plane that is being stopped.
func (e *exercised) note(cp *controlplane.ControlPlane) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	const ours = "system:serviceaccount:" + controlplane.Namespace + ":"
	return cp.Audit.All(func(r controlplane.Request) {
		account, ok := strings.CutPrefix(r.User.Username, ours)
		if !ok || r.Object.Resource == "" {
			return
		}
		asked := right{account, r.Verb, r.Object.Group, r.Object.Resource}
		if r.Object.Subresource != "" {
			asked.resource += "/" + r.Object.Subresource
		}
		e.asked[asked] = true
		if r.Annotations["authorization.k8s.io/decision"] == "allow" {
			e.allowed[asked] = true
		}
	})
}

// check compares what was asked with what the manifests grant. Whether something is
// granted in vain can be told after a run of all tests only.
func (e *exercised) check() error {
	granted, err := grantedRights()
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	var errs []error
	for _, r := range sorted(e.asked) {
		// What tests take away for a while is granted here all the same.
		if !granted[r] {
			errs = append(errs, fmt.Errorf("no role grants %v", r))
		}
	}
	if everyTestRan() {
		for _, r := range sorted(granted) {
			watch := r
			watch.verb = "watch"
			// Lists come as watches, but from servers that cannot do that.
			if used := e.allowed[r] || r.verb == "list" && e.allowed[watch]; !used {
				errs = append(errs, fmt.Errorf("nobody uses %v", r))
			}
		}
	}
	return errors.Join(errs...)
}

func everyTestRan() bool {
	return !testing.Short() && flag.Lookup("test.run").Value.String() == "" && flag.Lookup("test.skip").Value.String() == ""
}

func sorted(rights map[right]bool) []right {
	return slices.SortedFunc(maps.Keys(rights), func(a, b right) int { return strings.Compare(a.String(), b.String()) })
}

// grantedRights are those of all roles of manifests, for the accounts that they are
// bound to.
func grantedRights() (map[right]bool, error) {
	files, err := filepath.Glob("../manifests/components/*/*.yaml")
	if err != nil {
		return nil, err
	}
	more, err := filepath.Glob("../manifests/base/*/rbac.yaml")
	if err != nil {
		return nil, err
	}
	rules, accounts := map[string][]rbacv1.PolicyRule{}, map[string]string{}
	for _, path := range append(files, more...) {
		if err := readRoles(path, rules, accounts); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	granted := map[right]bool{}
	for role, account := range accounts {
		if len(rules[role]) == 0 {
			return nil, fmt.Errorf("%s is bound to, but does not exist", role)
		}
		for _, rule := range rules[role] {
			for _, group := range rule.APIGroups {
				for _, resource := range rule.Resources {
					for _, verb := range rule.Verbs {
						granted[right{account, verb, group, resource}] = true
					}
				}
			}
		}
	}
	return granted, nil
}

// readRoles adds the rules of roles, and the accounts to which they are bound, by kind,
// namespace and name of the role.
func readRoles(path string, rules map[string][]rbacv1.PolicyRule, accounts map[string]string) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	reader := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(content)))
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		object, _, err := scheme.Codecs.UniversalDeserializer().Decode(document, nil, nil)
		if err != nil {
			continue // not of Kubernetes
		}
		switch o := object.(type) {
		case *rbacv1.Role:
			rules["Role/"+o.Namespace+"/"+o.Name] = o.Rules
		case *rbacv1.ClusterRole:
			rules["ClusterRole//"+o.Name] = o.Rules
		case *rbacv1.RoleBinding:
			accounts[o.RoleRef.Kind+"/"+map[bool]string{true: o.Namespace}[o.RoleRef.Kind == "Role"]+"/"+o.RoleRef.Name] = o.Subjects[0].Name
		case *rbacv1.ClusterRoleBinding:
			accounts["ClusterRole//"+o.RoleRef.Name] = o.Subjects[0].Name
		}
	}
}
