package manifests

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sakeeper/sakeeper/pkg/policy"
)

// TestPoliciesAreThoseOfTheGenerator compares the components with what sakeeper policies prints. -update writes them.
func TestPoliciesAreThoseOfTheGenerator(t *testing.T) {
	for _, name := range policy.Names() {
		generated, err := policy.Generate([]string{name}, policy.Newest(), policy.Defaults())
		if err != nil {
			t.Fatal(err)
		}
		var text bytes.Buffer
		if err := policy.Write(&text, generated); err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join("components", "policies", name)
		path := filepath.Join(dir, "policies.yaml")
		if *update {
			if err := os.WriteFile(path, text.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		stored, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(text.String(), string(stored)); diff != "" {
			t.Errorf("%s: run `make manifests` (-generated +stored):\n%s", path, diff)
		}
		if n := len(objects(t, dir, kustomize(t, dir))); n != len(generated) {
			t.Errorf("%s has %d objects, want %d", dir, n, len(generated))
		}
	}
	dirs, err := os.ReadDir("components/policies")
	if err != nil || len(dirs) != len(policy.Names()) {
		t.Errorf("components for policies are %v, %v; policies are %v", dirs, err, policy.Names())
	}
}
