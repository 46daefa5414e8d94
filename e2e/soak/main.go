// Command soak runs sakeeper for as long as it is told, on a real kube-apiserver with etcd, while
// users and operators do things at random, and looks for contradictions to what sakeeper promises.
// It shares no code with sakeeper but the names of package api: tokens are verified by go-jose.
//
// What happens is a script, made from a seed. A script that shows a violation is made shorter for as
// long as it still shows it, and printed.
//
// Usage, in the root of the repository:
//
//	go run ./e2e/soak [-for 3m] [-seed N | -script FILE] [-binary FILE] [-shrink 15m]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"time"

	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

// settings are the flags.
type settings struct {
	duration, guard, shrink time.Duration
	seed                    uint64
	file, binary            string
	race, clock             bool
}

func run(ctx context.Context, args []string) error {
	var s settings
	flags := flag.NewFlagSet("soak", flag.ContinueOnError)
	flags.DurationVar(&s.duration, "for", 3*time.Minute, "how long new rounds begin")
	flags.DurationVar(&s.guard, "guard", 4*time.Minute, "how long anything may take after the last disturbance; many times what it should")
	flags.DurationVar(&s.shrink, "shrink", 0, "how long a script that fails may be made shorter")
	flags.Uint64Var(&s.seed, "seed", 0, "seed of the script; 0: a new one")
	flags.StringVar(&s.file, "script", "", "file with a script, instead of one from a seed")
	flags.StringVar(&s.binary, "binary", "", "sakeeper to run; empty: it is built")
	flags.BoolVar(&s.race, "race", false, "build it with the race detector")
	flags.BoolVar(&s.clock, "clock", false, "build it with a clock that can be set, which takes minutes")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if s.seed == 0 {
		s.seed = rand.Uint64N(1 << 32)
	}
	dir, err := os.MkdirTemp("", "soak-build-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if s.binary == "" {
		s.binary = filepath.Join(dir, "sakeeper")
		if err := s.build(ctx, dir); err != nil {
			return err
		}
	}
	return s.soak(ctx)
}

// soak runs a script, and shrinks it if it fails.
func (s settings) soak(ctx context.Context) error {
	source := fromSeed(s.seed, s.duration)
	if s.file != "" {
		text, err := os.ReadFile(s.file)
		if err != nil {
			return err
		}
		fixed, err := parseScript(string(text))
		if err != nil {
			return err
		}
		source = fromScript(fixed)
	} else {
		fmt.Printf("seed %d\n", s.seed)
	}
	done, found, err := s.play(ctx, source, printf)
	if err != nil {
		return fmt.Errorf("seed %d: %w", s.seed, err)
	}
	if len(found) == 0 {
		fmt.Printf("%d steps, no violation\n", len(done))
		return nil
	}
	for _, v := range found {
		fmt.Println("VIOLATION", v)
	}
	if s.shrink > 0 {
		ctx, cancel := context.WithTimeout(ctx, s.shrink)
		defer cancel()
		done = shrink(ctx, done, func(candidate script) bool {
			_, again, err := s.play(ctx, fromScript(candidate), quietly)
			fmt.Printf("shrink: %d steps: %v %v\n", len(candidate), again, err)
			return err == nil && sharesKind(found, again)
		})
	}
	file := fmt.Sprintf("soak-%d.script", s.seed)
	if err := os.WriteFile(file, []byte(done.String()), 0o600); err != nil {
		return err
	}
	fmt.Printf("the script, also in %s (run it with SCRIPT=%s):\n%s", file, file, done)
	return fmt.Errorf("%d violations; seed %d", len(found), s.seed)
}

func printf(format string, args ...any) { fmt.Printf(format+"\n", args...) }
func quietly(string, ...any)            {}

// fromSeed returns rounds for that long.
func fromSeed(seed uint64, duration time.Duration) func() script {
	g := newGenerator(seed)
	var began time.Time
	next := g.first()
	return func() script {
		if began.IsZero() {
			began = time.Now()
		}
		if time.Since(began) > duration {
			return nil
		}
		round := slices.Concat(next, g.round())
		next = nil
		return round
	}
}

// fromScript returns a script as one round, which ends with a check.
func fromScript(fixed script) func() script {
	left := slices.Concat(fixed, script{{checkStep}})
	return func() script {
		now := left
		left = nil
		return now
	}
}

// play runs rounds in a world of their own until there are none left, or a check finds something.
// It returns what was done.
func (s settings) play(ctx context.Context, rounds func() script, log func(string, ...any)) (done script, found findings, err error) {
	w, err := newWorld(ctx, s.binary, log)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	c := &checker{guard: s.guard}
	for round := rounds(); len(round) > 0; round = rounds() {
		for _, one := range round {
			done = append(done, one)
			if one[0] == checkStep {
				began := time.Now()
				if found, err = c.check(ctx, w); err != nil || len(found) > 0 {
					return done, found, err
				}
				log("checked after %d steps, in %v", len(done), time.Since(began).Round(time.Millisecond))
				continue
			}
			if err := w.do(ctx, one); err != nil {
				log("%s: %.200s", one, err)
			} else {
				log("%s", one)
			}
			if ctx.Err() != nil {
				return done, nil, ctx.Err()
			}
		}
	}
	return done, nil, nil
}

// do does a step, whose error is for the reader alone.
func (w *world) do(ctx context.Context, one step) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	return actions[one[0]](ctx, w, one)
}

// build builds sakeeper.
func (s settings) build(ctx context.Context, dir string) error {
	root, err := controlplane.RepositoryRoot()
	if err != nil {
		return err
	}
	args := []string{"build", "-o", s.binary}
	if s.race {
		args = append(args, "-race")
	}
	if s.clock {
		overlay, err := clockOverlay(ctx, dir)
		if err != nil {
			return err
		}
		args = append(args, "-overlay", overlay)
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "./cmd/sakeeper")...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build sakeeper: %w: %s", err, out)
	}
	return nil
}
