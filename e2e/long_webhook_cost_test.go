package e2e

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

// TestLongAReviewCostsLittleMoreThanDecoding runs a test of pkg/podadmission without the race
// detector, whose cost would be measured too.
func TestLongAReviewCostsLittleMoreThanDecoding(t *testing.T) {
	root, err := controlplane.RepositoryRoot()
	must(t, err)
	cmd := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-v", "-run=^TestAReviewCostsLittleMoreThanDecoding$", "./pkg/podadmission")
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil || !strings.Contains(string(out), "--- PASS") {
		t.Errorf("go test: %v", err)
	}
}
