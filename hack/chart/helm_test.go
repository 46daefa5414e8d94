package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

func repository(t *testing.T) string {
	t.Helper()
	root, err := controlplane.RepositoryRoot()
	must(t, err)
	return root
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// helm runs Helm as a user who has never used it before, and returns what it prints.
func helm(t *testing.T, args ...string) (stdout string, err error) {
	t.Helper()
	binary := filepath.Join(repository(t), "bin", "tools", "helm")
	if _, err := os.Stat(binary); err != nil {
		t.Fatalf("run `make bin/tools/helm` first: %v", err)
	}
	cmd := exec.CommandContext(t.Context(), binary, args...)
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir(), "SOURCE_DATE_EPOCH=0")
	var out, failed bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &failed
	if err := cmd.Run(); err != nil {
		return out.String(), &helmError{strings.TrimSpace(failed.String())}
	}
	return out.String(), nil
}

func mustHelm(t *testing.T, args ...string) string {
	t.Helper()
	out, err := helm(t, args...)
	if err != nil {
		t.Fatalf("helm %s: %v", strings.Join(args, " "), err)
	}
	return out
}

// A helmError is what Helm said when it failed.
type helmError struct{ text string }

func (e *helmError) Error() string { return e.text }

// expectRefused expects that Helm failed, and said each of the texts.
func expectRefused(t *testing.T, err error, texts ...string) {
	t.Helper()
	if err == nil {
		t.Error("it was not refused")
		return
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("it does not say %q: %v", text, err)
		}
	}
}

func chart(t *testing.T) string {
	t.Helper()
	return filepath.Join(repository(t), chartDir)
}

// templateArgs are for `helm template` with values, as --set has them.
func templateArgs(t *testing.T, in string, values ...string) []string {
	t.Helper()
	args := []string{"template", "sakeeper", chart(t), "--namespace=" + in, "--kube-version=1.37.0", "--skip-tests"}
	for _, value := range values {
		args = append(args, "--set", value)
	}
	return args
}
