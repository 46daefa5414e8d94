package e2e

import (
	"os/exec"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

// TestApplyTwiceChangesNothing: where a manifest lacks a default that the API server adds to a
// list, kubectl takes the object for changed.
func TestApplyTwiceChangesNothing(t *testing.T) {
	p := newControlPlane(t)
	kubeconfig, err := p.Kubeconfig("apply.kubeconfig", p.Admin)
	must(t, err)
	kubectl, err := controlplane.Binary("kubectl")
	must(t, err)
	apply := func(dir string) []string {
		out, err := exec.CommandContext(t.Context(), kubectl, "--kubeconfig", kubeconfig, "apply", "-k", "../manifests/"+dir).CombinedOutput()
		if err != nil {
			t.Fatalf("apply %s: %v: %s", dir, err, out)
		}
		return strings.Split(strings.TrimSpace(string(out)), "\n")
	}
	for _, dir := range []string{"overlays/outside", "overlays/coexist", "overlays/coexist-webhook", "overlays/replace", "overlays/static-pod", "base/authenticator"} {
		if first := apply(dir); len(first) < 7 {
			t.Errorf("%s has only %d objects: %q", dir, len(first), first)
		}
		budgets := budgetVersions(t, p)
		for _, line := range apply(dir) {
			// kubectl sends the selector of a PodDisruptionBudget each time.
			isBudget := strings.HasPrefix(line, "poddisruptionbudget.policy/")
			if !strings.HasSuffix(line, " unchanged") && !isBudget {
				t.Errorf("%s applied again: %s", dir, line)
			}
		}
		if again := budgetVersions(t, p); again != budgets {
			t.Errorf("%s applied again: the budgets %s became %s", dir, budgets, again)
		}
	}
}

// budgetVersions are the names and versions of all PodDisruptionBudgets.
func budgetVersions(t *testing.T, p controlPlane) string {
	t.Helper()
	budgets, err := p.client.PolicyV1().PodDisruptionBudgets(controlplane.Namespace).List(t.Context(), metav1.ListOptions{})
	must(t, err)
	var all []string
	for _, b := range budgets.Items {
		all = append(all, b.Name+" "+b.ResourceVersion)
	}
	return strings.Join(all, ", ")
}
