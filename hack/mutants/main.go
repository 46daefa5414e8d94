// Command mutants changes the product in small ways, one at a time, and reports which changes no
// test notices. The mutants are in mutants.txt. The working tree is not touched: each mutant is
// built with go test -overlay.
//
// Usage, in the root of the repository:
//
//	go run ./hack/mutants [-match REGEXP] [-skip REGEXP]
//	go run ./hack/mutants -soak [-seed N] [-match REGEXP]
//
// With -soak, the mutants are those of soak.txt, and the soak (e2e/soak) must notice them.
//
// It prints a line per mutant: caught, SURVIVED, STALE if the text is no longer in the file exactly
// once, or BROKEN if the mutant does not compile. The exit code is 1 unless all were caught.
package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
)

//go:embed mutants.txt
var table string

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1) //nolint:gocritic // the process ends
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("mutants", flag.ContinueOnError)
	match := flags.String("match", "", "only mutants whose \"FILE: OLD\" matches this expression")
	skip := flags.String("skip", "RealAPIServer", "tests that are not run; by default those that start an API server")
	soak := flags.Bool("soak", false, "mutants of soak.txt, which the soak must notice in three minutes each")
	seed := flags.String("seed", "0", "seed of the soak; 0: a new one each time")
	if err := flags.Parse(args); err != nil {
		return err
	}
	wanted, err := regexp.Compile(*match)
	if err != nil {
		return err
	}
	text := table
	if *soak {
		text = soakTable
	}
	mutants, err := parse(text)
	if err != nil {
		return err
	}
	mutants = slices.DeleteFunc(mutants, func(m mutant) bool { return !wanted.MatchString(m.file + ": " + m.old) })
	dir, err := os.MkdirTemp("", "mutants")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	r := runner{dir: dir, test: goTest{*skip}.run, tests: mutant.tests}
	if *soak {
		r.test, r.tests = soakTests{dir, *seed}.run, func(mutant) []string { return nil }
	}
	return r.all(ctx, mutants)
}

// runner tests mutants one by one.
type runner struct {
	dir string
	// test runs the tests, with arguments for the go command.
	test func(ctx context.Context, args ...string) ([]byte, error)
	// tests are the arguments that name the tests of a mutant.
	tests func(mutant) []string
}

// outcome is what the tests said about a mutant.
type outcome string

const (
	caught   outcome = "caught"
	survived outcome = "SURVIVED"
	stale    outcome = "STALE"
	broken   outcome = "BROKEN"
)

func (r runner) all(ctx context.Context, mutants []mutant) error {
	if err := r.unchanged(ctx, mutants); err != nil {
		return err
	}
	count := map[outcome]int{}
	for _, m := range mutants {
		result, err := r.one(ctx, m)
		if err != nil {
			return err
		}
		count[result]++
		fmt.Printf("%-8s  %s: %s\n", result, m.file, m)
	}
	fmt.Printf("%d mutants: %d caught, %d survived, %d stale, %d broken\n",
		len(mutants), count[caught], count[survived], count[stale], count[broken])
	if count[caught] < len(mutants) {
		return fmt.Errorf("%d mutants were not caught", len(mutants)-count[caught])
	}
	return nil
}

// unchanged returns an error if the tests fail without a mutant, because then they say nothing.
func (r runner) unchanged(ctx context.Context, mutants []mutant) error {
	packages := []string{}
	for _, m := range mutants {
		packages = append(packages, r.tests(m)...)
	}
	slices.Sort(packages)
	if output, err := r.test(ctx, slices.Compact(packages)...); err != nil {
		return fmt.Errorf("without a mutant: %w\n%s", err, output)
	}
	return nil
}

func (r runner) one(ctx context.Context, m mutant) (outcome, error) {
	source, err := os.ReadFile(m.file)
	if err != nil {
		return stale, nil //nolint:nilerr // the file was moved
	}
	if bytes.Count(source, []byte(m.old)) != 1 {
		return stale, nil
	}
	overlay, err := r.overlay(m.file, bytes.Replace(source, []byte(m.old), []byte(m.new), 1))
	if err != nil {
		return "", err
	}
	output, err := r.test(ctx, append([]string{"-overlay", overlay}, r.tests(m)...)...)
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case err == nil:
		return survived, nil
	case bytes.Contains(output, []byte(buildFailed)):
		return broken, nil
	default:
		return caught, nil
	}
}

// overlay writes content, and the file for -overlay that puts it in the place of the source file.
func (r runner) overlay(file string, content []byte) (string, error) {
	path, err := filepath.Abs(file)
	if err != nil {
		return "", err
	}
	changed, overlay := filepath.Join(r.dir, "mutant.go"), filepath.Join(r.dir, "overlay.json")
	replace, err := json.Marshal(map[string]any{"Replace": map[string]string{path: changed}})
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(changed, content, 0o600); err != nil {
		return "", err
	}
	return overlay, os.WriteFile(overlay, replace, 0o600)
}

// buildFailed is in the output if a mutant does not compile.
const buildFailed = "[build failed]"

// goTest runs go test, which ends with the first test that fails. A mutant may never end.
type goTest struct{ skip string }

func (g goTest) run(ctx context.Context, args ...string) ([]byte, error) {
	args = append([]string{"test", "-count", "1", "-failfast", "-vet", "off", "-timeout", "3m", "-skip", g.skip}, args...)
	return exec.CommandContext(ctx, "go", args...).CombinedOutput()
}
