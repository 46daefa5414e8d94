package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"
)

// part is one of the benchmarks.
type part struct {
	name string
	run  func(s *session, ctx context.Context) error
	// small and full are about how long it takes at these scales, in minutes, on 2 CPUs.
	small, full float64
}

var parts = []part{
	{"namespaces", (*session).namespaces, 0.5, 1.5},
	{"tokens", (*session).tokens, 0.6, 3},
	{"es256", (*session).es256, 0.8, 4},
	{"crowd", (*session).crowd, 0.3, 1},
	{"ca", (*session).newCA, 0.4, 1.5},
	{"single", (*session).single, 1.3, 6},
	{"restart", (*session).restart, 0.5, 5},
	{"takeover", (*session).takeover, 1.3, 4},
	{"limits", (*session).limits, 0.4, 0.6},
	{"memory", (*session).memory, 1, 3},
	{"pods", (*session).pods, 1.2, 4},
	{"policy", (*session).policy, 1, 3},
	{"growth", (*session).growth, 0.5, 3},
}

func (p part) expected(scale string) time.Duration {
	minutes := p.small
	if scale == "full" {
		minutes = p.full
	}
	return time.Duration(minutes * float64(time.Minute))
}

func partNames() []string {
	var names []string
	for _, p := range parts {
		names = append(names, p.name)
	}
	return names
}

func chosenParts(names *regexp.Regexp) []part {
	var chosen []part
	for _, p := range parts {
		if names.MatchString(p.name) {
			chosen = append(chosen, p)
		}
	}
	return chosen
}

// remaining is about how long the parts take at a scale.
func remaining(parts []part, scale string) time.Duration {
	var sum time.Duration
	for _, p := range parts {
		sum += p.expected(scale)
	}
	return sum.Round(30 * time.Second)
}

// runParts runs all parts, also after one has failed.
func (s *session) runParts(ctx context.Context, parts []part, scale string) (err error) {
	s.progress("%d parts, about %v with the sizes of scale %s", len(parts), remaining(parts, scale), scale)
	for i, p := range parts {
		s.progress("part %d of %d, %s: about %v remain", i+1, len(parts), p.name, remaining(parts[i:], scale))
		began := time.Now()
		if failed := p.run(s, ctx); failed != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", p.name, failed))
			s.progress("%s: %v", p.name, failed)
		}
		s.progress("part %d of %d, %s, took %.1f minutes", i+1, len(parts), p.name, time.Since(began).Minutes())
		if ctx.Err() != nil {
			break
		}
	}
	return err
}

// inTurns calls do for all contestants, in an order that rotates with each run.
func (s *session) inTurns(runs int, contestants []contestant, do func(turn int, c contestant) error) error {
	for i := range runs {
		for j := range contestants {
			c := contestants[(i+j)%len(contestants)]
			s.progress("  turn %d of %d: %s", i+1, runs, c.name)
			if err := do(i, c); err != nil {
				return err
			}
		}
	}
	return nil
}
