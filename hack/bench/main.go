// Command bench compares sakeeper with kube-controller-manager, and with a bare client that
// makes the same writes and decides nothing: the floor. In one run on one machine, the programs
// (contestants) take turns on the same control plane. It prints the medians, their ratios, the
// goals, and with -json everything that was measured.
//
// Contestants are child processes; their CPU time and memory come from /proc. The load comes
// from separate processes (package load), and the requests of a contestant are counted in
// the audit log of the API server. Ratios can be compared with those of other machines;
// times cannot.
//
// Limits of the comparison:
//
//   - Contestant, API server, etcd and load share the machine. A rate is never better than
//     the API server allows, and each request costs a line of the audit log.
//   - Except in the part "limits", contestants have no client rate limits and the same number
//     of workers for token Secrets. kube-controller-manager handles one ServiceAccount and
//     one ConfigMap at a time, which cannot be configured.
//   - kube-controller-manager runs as an administrator, sakeeper and the bare client with the
//     rights of sakeeper.
//   - CPU is measured until the contestant has been idle for a second. It excludes what comes
//     later: the garbage collection of sakeeper, and retries of kube-controller-manager.
//   - Contestants share the control plane of a part. Namespaces of earlier turns stay; token
//     Secrets are deleted before the next contestant starts, where they would count.
//   - The bare client signs its tokens, with RSA-2048 and with ES256, and needs to watch the
//     accounts for that. It checks no key and retries nothing.
//   - One at a time: the time of a pod begins with the request, all others with the response.
//     The p99 of fewer than 100 events is the slowest one.
//   - A restart ends when a Secret is filled that was created right before the process started.
//   - After a stop of the leader, namespaces are created when the leader has ended. Both
//     programs have the same lease: at scale full the default, 15 s, 10 s and 2 s, at scale
//     small a third of that.
//   - kube-controller-manager reads its CA at the start: "another CA" measures its restart,
//     after the old process has ended.
//   - Memory is read after ten seconds without work. By then sakeeper has returned memory to
//     the system; kube-controller-manager would need minutes. The peak is shown too.
//   - The in-tree plugin has a control plane of its own, with kube-controller-manager, beside
//     that of the other ways to admit pods. Pods without admission have no volume, and are smaller.
//   - A pod right after its namespace waits for the API server, which retries the lookup of
//     a namespace that it does not have yet, with every way to admit pods.
//   - In the part "policy", nothing, the webhook and the policy share an API server, and so its
//     garbage collection: beside 1,000 ServiceAccounts the policy makes the pods of others slower.
//   - Growth is measured for sakeeper alone.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/sakeeper/sakeeper/hack/bench/load"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1) //nolint:gocritic // run has cleaned up
	}
}

// run runs the benchmark, or one of the processes that it starts.
func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return bench(ctx, args)
	}
	switch args[0] {
	case "scale":
		return scale(ctx, args[1:])
	case "load":
		return load.Run(ctx, os.Stdin, os.Stdout)
	case "bare":
		return load.Bare(ctx, args[1], args[2], args[3])
	case "nothing":
		return load.Nothing(ctx, args[1], args[2], args[3], cannedPatch)
	default:
		return bench(ctx, args)
	}
}

// size has the numbers of objects and runs.
type size struct {
	objects  int // namespaces, and Secrets, at once
	deleted  int // ServiceAccounts
	crowd    int // Secrets in one namespace
	limited  int // objects where clients are limited
	ca       int // Secrets, and ConfigMaps, that get another CA
	pods     int
	filled   int // Secrets at a restart
	many     int // Secrets at another restart
	single   int // events, 5 a second
	lease    int // seconds
	idle     int // unrelated objects, and token Secrets, in memory
	growth   int // N of N, 2N, 4N
	parallel int // requests of the load at once
	runs     int
}

// sizeFlags adds a flag for each number of a size.
func sizeFlags(set *flag.FlagSet, s *size) {
	for name, n := range map[string]struct {
		what *int
		help string
	}{
		"objects":  {&s.objects, "namespaces, and token Secrets, at once"},
		"deleted":  {&s.deleted, "ServiceAccounts to delete"},
		"crowd":    {&s.crowd, "token Secrets in the full namespace"},
		"limited":  {&s.limited, "objects at default limits"},
		"ca":       {&s.ca, "Secrets, and ConfigMaps, that get another CA"},
		"pods":     {&s.pods, "pods in a turn, one after the other; twice as many 8 at once; and in each namespace of the part policy"},
		"filled":   {&s.filled, "filled token Secrets at a restart"},
		"many":     {&s.many, "filled token Secrets at another restart"},
		"single":   {&s.single, "events of each kind, 5 a second"},
		"lease":    {&s.lease, "lease duration of two replicas, in seconds; the other times in proportion"},
		"idle":     {&s.idle, "Secrets, ConfigMaps and token Secrets while memory is read"},
		"growth":   {&s.growth, "N of N, 2N, 4N"},
		"parallel": {&s.parallel, "requests of the load under way at once"},
		"runs":     {&s.runs, "runs of each contestant"},
	} {
		set.IntVar(n.what, name, 0, n.help+"; 0: as -scale says")
	}
}

// or returns s with its zero fields set from other.
func (s size) or(other size) size {
	return size{
		objects: cmp.Or(s.objects, other.objects), deleted: cmp.Or(s.deleted, other.deleted), crowd: cmp.Or(s.crowd, other.crowd),
		limited: cmp.Or(s.limited, other.limited), ca: cmp.Or(s.ca, other.ca), pods: cmp.Or(s.pods, other.pods), idle: cmp.Or(s.idle, other.idle),
		filled: cmp.Or(s.filled, other.filled), many: cmp.Or(s.many, other.many), single: cmp.Or(s.single, other.single), lease: cmp.Or(s.lease, other.lease),
		growth: cmp.Or(s.growth, other.growth), parallel: cmp.Or(s.parallel, other.parallel), runs: cmp.Or(s.runs, other.runs),
	}
}

var sizes = map[string]size{
	"small": {objects: 300, deleted: 200, crowd: 1000, limited: 60, ca: 100, pods: 50, filled: 600, many: 5000, single: 20, lease: 5, idle: 1000, growth: 100, parallel: 50, runs: 1},
	"full":  {objects: 2000, deleted: 1000, crowd: 10000, limited: 100, ca: 1000, pods: 150, filled: 4000, many: 100000, single: 40, lease: 15, idle: 20000, growth: 500, parallel: 50, runs: 3},
}

// session is one run of this program.
type session struct {
	dir      string
	sakeeper string // path of the binary
	size     size
	results  results
	began    time.Time
}

func bench(ctx context.Context, args []string) (err error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	scale := flags.String("scale", "small", "numbers of objects and runs: small or full")
	var wanted size
	sizeFlags(flags, &wanted)
	only := flags.String("only", ".", "a regular expression: which parts to run, of "+strings.Join(partNames(), ", "))
	jsonFile := flags.String("json", "", "a file for everything that was measured")
	chartFile := flags.String("chart", "", "a file for a chart of the ratios, as SVG")
	if err := flags.Parse(args); err != nil {
		return err
	}
	chosen, err := regexp.Compile(*only)
	if err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	root, err := controlplane.RepositoryRoot()
	if err != nil {
		return err
	}
	s := &session{sakeeper: filepath.Join(root, "bin/sakeeper"), results: results{}, began: time.Now()}
	output, err := exec.CommandContext(ctx, s.sakeeper, "--version").Output()
	if err != nil {
		return fmt.Errorf("%s (built by `make build`): %w", s.sakeeper, err)
	}
	version := strings.TrimSpace(string(output))
	named, ok := sizes[*scale]
	if !ok {
		return fmt.Errorf("-scale: %q is neither small nor full", *scale)
	}
	s.size = wanted.or(named)
	if s.dir, err = os.MkdirTemp("", "sakeeper-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(s.dir)) }()
	err = s.runParts(ctx, chosenParts(chosen), *scale)
	took := time.Since(s.began).Round(time.Second)
	fmt.Printf("\n%s, %s, %s, scale %s, %d runs, %v\n\n", version, machine(), s.began.Format(time.DateOnly), *scale, s.size.runs, took)
	if err != nil {
		fmt.Printf("INCOMPLETE: %v\n\n", err)
	}
	s.results.print(os.Stdout, goals)
	err = errors.Join(err, s.results.writeChart(*chartFile, fmt.Sprintf("%s, %s, %s, scale %s", version, machine(), s.began.Format(time.DateOnly), *scale)))
	if *jsonFile != "" {
		about := map[string]any{"version": version, "machine": machine(), "began": s.began, "took": took.String(), "scale": *scale, "size": fmt.Sprintf("%+v", s.size)}
		if err != nil {
			about["error"] = err.Error()
		}
		err = errors.Join(err, s.results.write(*jsonFile, about))
	}
	return err
}

func (s *session) progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%6.1fs  %s\n", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
}

// record adds a sample to the results, and prints a summary of it.
func (s *session) record(workload string, c string, out sample) {
	s.results.add(workload, c, out)
	s.progress("    %-36s %-24s %s", workload, c, out.brief())
}
