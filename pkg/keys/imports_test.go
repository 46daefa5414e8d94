package keys_test

import (
	"os/exec"
	"strings"
	"testing"
)

func TestImportsNoKubernetesClient(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	if !strings.Contains(string(out), "github.com/sakeeper/sakeeper/pkg/keys\n") {
		t.Fatalf("go list shows no dependencies:\n%s", out)
	}
	for pkg := range strings.Lines(string(out)) {
		for _, prefix := range []string{"k8s.io/client-go", "k8s.io/api/", "k8s.io/kubernetes", "sigs.k8s.io/controller-runtime"} {
			if strings.HasPrefix(pkg, prefix) {
				t.Errorf("imports %s", pkg)
			}
		}
	}
}
