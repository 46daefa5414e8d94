package manifests

import (
	"bufio"
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

//go:embed rbac/*/role.yaml
var roles embed.FS

// RolesWith returns those of the directories below rbac/ that have a role with the right to verb a
// resource, such as "secrets" or "serviceaccounts/token", of an API group.
func RolesWith(verb, group, resource string, directories []string) ([]string, error) {
	var found []string
	for _, directory := range directories {
		rules, err := rulesIn(path.Join("rbac", directory, "role.yaml"))
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(rules, func(rule rbacv1.PolicyRule) bool {
			return slices.Contains(rule.Verbs, verb) && slices.Contains(rule.APIGroups, group) && slices.Contains(rule.Resources, resource)
		}) {
			found = append(found, directory)
		}
	}
	return found, nil
}

// rulesIn returns the rules of all roles in a file.
func rulesIn(file string) ([]rbacv1.PolicyRule, error) {
	content, err := roles.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var rules []rbacv1.PolicyRule
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(content)))
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return rules, nil
		}
		var role rbacv1.ClusterRole // a Role has the same field; other objects have none
		if err == nil {
			err = yaml.Unmarshal(document, &role)
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", file, err)
		}
		rules = append(rules, role.Rules...)
	}
}
