// Command bench puts sakeeper and kube-controller-manager side by side: on a control plane
// of its own for each, in turns, on one machine, in one run. It prints the medians and
// their ratios, what is to be reached, and, with -json, everything that was measured.
//
// Contestants are child processes, whose CPU time and memory the operating system tells.
// What they are given to do comes from processes of its own (package load), and what they
// ask of the API server is counted in its audit log. Times mean little on another machine,
// or on a busy one; ratios do.
//
// What to know of the comparison: contestant, API server, etcd and load share the machine,
// so that a rate is never better than the API server allows, and each request costs a line
// of the audit log. But for the part on default limits, contestants have their limits
// lifted, and work on as many token Secrets at once; kube-controller-manager works on one
// ServiceAccount and one ConfigMap at once, which cannot be set. It runs as an
// administrator, sakeeper and the bare client with sakeeper's own rights. CPU is what was
// used until the contestant had been at rest for a second: that sakeeper tidies up its
// memory seconds later is in none of the figures, nor is what kube-controller-manager
// tries again after more than that. A cold start includes the namespaces that were made
// meanwhile. kube-controller-manager reads its CA when it starts: there, another CA is a
// restart, from its end on. The memory of a process is read when it has had nothing to do
// for ten seconds, by when sakeeper has tidied up, and kube-controller-manager would need
// minutes; its peak stands beside it. The in-tree ways to admit pods have planes of their
// own and their turns before the others: compare them with care, and know that pods which
// nobody admits have no volume, and are smaller. A pod right after its namespace waits for
// the API server itself, which looks twice for a namespace that it does not have yet,
// whoever admits the pod. Growth is that of sakeeper alone.
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
		os.Exit(1) //nolint:gocritic // nothing is left to be cleaned up
	}
}

// run is the benchmark, or one of the processes that it starts.
func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return bench(ctx, args)
	}
	switch args[0] {
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

// size is how much there is to do.
type size struct {
	objects  int // namespaces, and Secrets, at once
	deleted  int // ServiceAccounts
	crowd    int // Secrets in one namespace
	limited  int // objects where clients are limited
	ca       int // Secrets, and ConfigMaps, that get another CA
	pods     int
	idle     int // unrelated objects, and token Secrets, in memory
	growth   int // N of N, 2N, 4N
	parallel int // requests of the load at once
	runs     int
}

// sizeFlags are for who wants another size than those that have a name.
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
		"pods":     {&s.pods, "pods in a turn, one after the other; twice as many 8 at once"},
		"idle":     {&s.idle, "Secrets, ConfigMaps and token Secrets while memory is read"},
		"growth":   {&s.growth, "N of N, 2N, 4N"},
		"parallel": {&s.parallel, "requests of the load under way at once"},
		"runs":     {&s.runs, "how often each contestant has its turn"},
	} {
		set.IntVar(n.what, name, 0, n.help+"; 0: as -scale says")
	}
}

// or is s, and where s says nothing, other.
func (s size) or(other size) size {
	return size{
		objects: cmp.Or(s.objects, other.objects), deleted: cmp.Or(s.deleted, other.deleted), crowd: cmp.Or(s.crowd, other.crowd),
		limited: cmp.Or(s.limited, other.limited), ca: cmp.Or(s.ca, other.ca), pods: cmp.Or(s.pods, other.pods), idle: cmp.Or(s.idle, other.idle),
		growth: cmp.Or(s.growth, other.growth), parallel: cmp.Or(s.parallel, other.parallel), runs: cmp.Or(s.runs, other.runs),
	}
}

var sizes = map[string]size{
	"small": {objects: 300, deleted: 200, crowd: 1000, limited: 60, ca: 100, pods: 50, idle: 1000, growth: 100, parallel: 50, runs: 1},
	"full":  {objects: 2000, deleted: 1000, crowd: 10000, limited: 100, ca: 1000, pods: 150, idle: 20000, growth: 500, parallel: 50, runs: 3},
}

// session is one run of this program.
type session struct {
	dir      string
	sakeeper string // the program
	size     size
	results  results
	began    time.Time
}

func bench(ctx context.Context, args []string) (err error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	scale := flags.String("scale", "small", "how much there is to do: small or full")
	var wanted size
	sizeFlags(flags, &wanted)
	only := flags.String("only", ".", "a regular expression: which parts to run, of "+strings.Join(partNames(), ", "))
	jsonFile := flags.String("json", "", "a file for everything that was measured")
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
		return fmt.Errorf("%s, which make build makes: %w", s.sakeeper, err)
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
	for _, p := range parts {
		if !chosen.MatchString(p.name) {
			continue
		}
		if failed := s.play(ctx, p); failed != nil { // the others may still tell something
			err = errors.Join(err, fmt.Errorf("%s: %w", p.name, failed))
			s.progress("%s: %v", p.name, failed)
		}
		if ctx.Err() != nil {
			break
		}
	}
	took := time.Since(s.began).Round(time.Second)
	fmt.Printf("\n%s, %s, %s, scale %s, %d runs, %v\n\n", version, machine(), s.began.Format(time.DateOnly), *scale, s.size.runs, took)
	if err != nil {
		fmt.Printf("INCOMPLETE: %v\n\n", err)
	}
	s.results.print(os.Stdout)
	if *jsonFile != "" {
		about := map[string]any{"version": version, "machine": machine(), "began": s.began, "took": took.String(), "scale": *scale, "size": fmt.Sprintf("%+v", s.size)}
		if err != nil {
			about["error"] = err.Error()
		}
		err = errors.Join(err, s.results.write(*jsonFile, about))
	}
	return err
}

// part is one of the benchmarks.
type part struct {
	name string
	// play does it once, for a contestant.
	play func(s *session, ctx context.Context, c contestant) error
	// contestants take turns, as often as there are runs, or once.
	contestants []contestant
	once        bool
}

var parts = []part{
	{name: "tokens", play: (*session).tokens, contestants: []contestant{sakeeper, inTree}},
	{name: "es256", play: (*session).es256, contestants: []contestant{sakeeper, inTree}},
	{name: "fill", play: (*session).fill, contestants: []contestant{sakeeper, inTree, bare}},
	{name: "limits", play: (*session).limits, contestants: []contestant{sakeeper, inTree}},
	{name: "memory", play: (*session).memory, contestants: []contestant{sakeeper, inTree}, once: true},
	{name: "pods", play: (*session).pods, contestants: []contestant{sakeeper}, once: true},
	{name: "growth", play: (*session).growth, contestants: []contestant{sakeeper}},
}

func partNames() []string {
	var names []string
	for _, p := range parts {
		names = append(names, p.name)
	}
	return names
}

// play lets contestants take turns: who is first in one run is last in the next.
func (s *session) play(ctx context.Context, p part) error {
	runs := s.size.runs
	if p.once {
		runs = 1
	}
	for i := range runs {
		for j := range p.contestants {
			c := p.contestants[(i+j)%len(p.contestants)]
			s.progress("%s, run %d of %d: %s", p.name, i+1, runs, c.name)
			if err := p.play(s, ctx, c); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *session) progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%6.1fs  %s\n", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
}

// record keeps a sample, and shows what it is about.
func (s *session) record(workload string, c string, out sample) {
	s.results.add(workload, c, out)
	s.progress("    %-36s %-24s %s", workload, c, out.brief())
}
