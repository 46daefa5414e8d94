package e2e

import (
	"cmp"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

// TestLongPoliciesJudgePodsAsTheWebhook runs a test of pkg/policy with more pods: 1,000, or POLICY_CASES.
func TestLongPoliciesJudgePodsAsTheWebhook(t *testing.T) {
	root, err := controlplane.RepositoryRoot()
	must(t, err)
	cmd := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-timeout=30m", "-v", "-run=^TestPodsAreJudgedAsByTheWebhook$", "./pkg/policy")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "POLICY_CASES="+cmp.Or(os.Getenv("POLICY_CASES"), "1000"))
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil || !strings.Contains(string(out), "--- PASS") {
		t.Errorf("go test: %v", err)
	}
}
