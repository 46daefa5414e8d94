package main

import (
	"context"
	_ "embed"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
)

//go:embed soak.txt
var soakTable string

// soakTests runs the soak instead of the tests of a package.
type soakTests struct{ dir, seed string }

// run builds sakeeper with args of go build, and runs the soak with it, for up to three minutes: new
// rounds begin in the first two, and nothing may take longer than a minute after a disturbance.
func (s soakTests) run(ctx context.Context, args ...string) ([]byte, error) {
	soak, sakeeper := filepath.Join(s.dir, "soak"), filepath.Join(s.dir, "sakeeper")
	for _, build := range [][]string{
		{"build", "-o", soak, "./e2e/soak"},
		slices.Concat([]string{"build", "-o", sakeeper}, args, []string{"./cmd/sakeeper"}),
	} {
		if out, err := exec.CommandContext(ctx, "go", build...).CombinedOutput(); err != nil {
			return append(out, buildFailed...), fmt.Errorf("build: %w", err)
		}
	}
	return exec.CommandContext(ctx, soak, "-binary", sakeeper, "-for", "2m", "-guard", "1m", "-seed", s.seed).CombinedOutput()
}
