package manifests

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
)

// TestRightsThatAreCloseToClusterAdmin: who has them is in .github/SECURITY.md. All others would be new.
func TestRightsThatAreCloseToClusterAdmin(t *testing.T) {
	readsSecrets := []string{"reads Secrets"}
	want := map[string][]string{
		"authenticator":                                  readsSecrets,
		"authenticator-track-legacy-tokens":              {"writes Secrets"},
		"legacy-serviceaccount-token-cleaner-controller": {"reads Secrets", "writes Secrets"},
		"pull-secret-copy-controller-copies":             {"reads Secrets", "writes Secrets"},
		"pull-secret-copy-controller-sources":            readsSecrets,
		"serviceaccount-token-controller":                {"reads Secrets", "writes Secrets"},
		"token-generation-controller":                    {"reads Secrets", "writes Secrets"},
		"token-inventory-controller":                     readsSecrets,
		"token-request-controller":                       readsSecrets,
		"token-request-controller-served":                {"makes tokens", "writes Secrets"},
		"webhook":                                        {`writes webhook configurations named ["sakeeper-webhook"]`},
		"webhook-token-volumes-from-secrets":             readsSecrets,
	}
	files, err := filepath.Glob("rbac/*/role.yaml")
	if err != nil || len(files) < 12 {
		t.Fatalf("found %v, %v", files, err)
	}
	got := map[string][]string{}
	for _, path := range files {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		found := map[string]bool{}
		for _, object := range objects(t, path, string(content)) {
			switch o := object.(type) {
			case *rbacv1.ClusterRole:
				powers(o.Rules, found)
			case *rbacv1.Role: // in one namespace, which is not that of others
				for _, rule := range o.Rules {
					if slices.Contains(rule.Resources, "secrets") && len(rule.ResourceNames) == 0 {
						t.Errorf("%s: all Secrets of %s", path, o.Namespace)
					}
				}
			}
		}
		if len(found) > 0 {
			got[filepath.Base(filepath.Dir(path))] = slices.Sorted(maps.Keys(found))
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("roles (-want +got):\n%s", diff)
	}
}

// powers adds the rights of a ClusterRole that are close to cluster-admin.
func powers(rules []rbacv1.PolicyRule, found map[string]bool) {
	for _, rule := range rules {
		isRead := func(verb string) bool { return slices.Contains([]string{"get", "list", "watch"}, verb) }
		reads := slices.ContainsFunc(rule.Verbs, isRead)
		writes := slices.ContainsFunc(rule.Verbs, func(verb string) bool { return !isRead(verb) })
		for _, verb := range rule.Verbs {
			if slices.Contains([]string{"*", "impersonate", "escalate", "bind", "approve", "sign", "deletecollection"}, verb) {
				found["has the verb "+verb] = true
			}
		}
		for _, resource := range rule.Resources {
			switch resource {
			case "secrets":
				found["reads Secrets"] = found["reads Secrets"] || reads
				found["writes Secrets"] = found["writes Secrets"] || writes
			case "serviceaccounts/token":
				found["makes tokens"] = true
			case "mutatingwebhookconfigurations", "validatingwebhookconfigurations":
				if writes {
					found[fmt.Sprintf("writes webhook configurations named %q", rule.ResourceNames)] = true
				}
			// Writing these gives little.
			case "events", "tokenreviews", "serviceaccounts", "serviceaccounttemplates/status":
			case "configmaps":
				if writes && !slices.Equal(rule.ResourceNames, []string{"kube-root-ca.crt"}) && !slices.Equal(rule.Verbs, []string{"create"}) {
					found["writes ConfigMaps"] = true
				}
			default:
				if writes {
					found["writes "+resource] = true
				}
			}
		}
	}
	maps.DeleteFunc(found, func(_ string, has bool) bool { return !has })
}
