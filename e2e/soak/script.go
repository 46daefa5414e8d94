package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// step is one thing that a user or an operator does: its name, and with what.
type step []string

func (s step) String() string { return strings.Join(s, " ") }

// arg returns an argument, or nothing if there are not so many.
func (s step) arg(i int) string {
	if i+1 < len(s) {
		return s[i+1]
	}
	return ""
}

// script is what happens, in this order. A check waits until all is right.
type script []step

func (s script) String() string {
	lines := make([]string, 0, len(s))
	for _, one := range s {
		lines = append(lines, one.String()+"\n")
	}
	return strings.Join(lines, "")
}

// parseScript reads what String wrote. Empty lines, and those that begin with #, are skipped.
func parseScript(text string) (script, error) {
	var all script
	for line := range strings.Lines(text) {
		one := step(strings.Fields(line))
		if len(one) == 0 || strings.HasPrefix(one[0], "#") {
			continue
		}
		if _, ok := actions[one[0]]; !ok && one[0] != checkStep {
			return nil, fmt.Errorf("no such step: %s", one)
		}
		all = append(all, one)
	}
	return all, nil
}

const checkStep = "check"

// The names that users give.
var (
	namespaces   = []string{"n0", "n1", "n2", "n3"}
	accounts     = []string{"a0", "a1", "default"}
	tokenSecrets = []string{"a0-token-bcdfg", "a1-token-hjklm", "s2", "s3"}
	managed      = []string{"m0", "m1"}
	foreign      = []string{"foreign-0", "foreign-1"}
)

// generator makes scripts from a seed.
type generator struct{ *rand.Rand }

func newGenerator(seed uint64) generator { return generator{rand.New(rand.NewPCG(seed, 0))} } //nolint:gosec // no secret

func (g generator) of(list []string) string { return list[g.IntN(len(list))] }

// first makes what the first round begins with.
func (g generator) first() script {
	var s script
	for _, n := range namespaces {
		s = append(s, step{"create-namespace", n}, step{"create-account", n, "a0"}, step{"create-account", n, "a1"})
	}
	return append(s, step{"create-token-secret", "n0", "a0-token-bcdfg", "a0"}, step{"create-managed", "n0", "m0", "a0"},
		step{"create-foreign", "n0", "foreign-0", "Opaque"}, step{"save-etcd"})
}

// round makes the steps up to the next check: a few disturbances, with users at work before, during
// and after them. What a disturbance broke is mended later, or by the check.
func (g generator) round() script {
	var s script
	disturbed := g.disturbances()
	for range 1 + g.IntN(3) {
		if g.IntN(8) == 0 { // most rounds have a quiet beginning
			s = append(s, g.use())
		}
	}
	for _, d := range disturbed {
		for range 3 + g.IntN(6) {
			s = append(s, g.use())
		}
		s = append(s, d)
	}
	for range 4 + g.IntN(8) {
		s = append(s, g.use())
	}
	return append(s, step{checkStep})
}

// disturbances makes what operators do in a round.
func (g generator) disturbances() script {
	var s script
	for range 1 + g.IntN(3) {
		switch p := g.of(processNames); g.IntN(12) {
		case 0:
			s = append(s, step{"kill", p})
		case 1:
			s = append(s, step{"restart", p})
		case 2:
			s = append(s, step{"freeze", p}, g.pause(), step{"thaw", p})
		case 3:
			s = append(s, step{"cut", p}, g.pause(), step{"heal", p})
		case 4:
			s = append(s, step{"silence", p}, g.pause(), step{"heal", p})
		case 5, 6:
			s = append(s, step{"rotate-key"}, step{"pause", "4000"}, step{"rotate-key"})
		case 7:
			s = append(s, step{"change-ca"})
		case 8:
			s = append(s, step{"foreign-ca"}, g.pause(), step{"change-ca"})
		case 9:
			s = append(s, step{"kill-server"})
		case 10:
			s = append(s, step{g.of([]string{"kill-etcd", "save-etcd", "restore-etcd", "freeze-server"})})
		case 11:
			s = append(s, step{"set-clock", p, g.of([]string{"-600", "-45", "45", "600"})})
		}
	}
	return s
}

func (g generator) pause() step { return step{"pause", g.of([]string{"500", "3000", "12000"})} }

// use makes what a user does.
func (g generator) use() step {
	n := g.of(namespaces)
	type kind struct {
		weight int
		make   func() step
	}
	kinds := []kind{
		{2, func() step { return step{"create-namespace", n} }},
		{1, func() step { return step{"delete-namespace", n} }},
		{3, func() step { return step{"create-account", n, g.of(accounts)} }},
		{2, func() step { return step{"delete-account", n, g.of(accounts)} }},
		{2, func() step { return step{"replace-account", n, g.of(accounts)} }},
		{5, func() step { return step{"create-token-secret", n, g.of(tokenSecrets), g.of(accounts)} }},
		{2, func() step { return step{"delete-secret", n, g.of(tokenSecrets)} }},
		{3, func() step {
			return step{"damage-token-secret", n, g.of(tokenSecrets), g.of([]string{"token", "ca.crt", "namespace", "exchange"})}
		}},
		{2, func() step { return step{"refer", n, g.of(accounts), g.of(slices.Concat(tokenSecrets, foreign))} }},
		{3, func() step { return step{"create-managed", n, g.of(managed), g.of(accounts)} }},
		{1, func() step { return step{"delete-secret", n, g.of(managed)} }},
		{2, func() step { return step{"damage-managed", n, g.of(managed), g.of([]string{"token", "ca.crt", "rotate", "expired"})} }},
		{2, func() step {
			return step{"create-foreign", n, g.of(foreign), g.of([]string{"Opaque", "kubernetes.io/basic-auth", "example.com/mine"})}
		}},
		{1, func() step { return step{"delete-secret", n, g.of(foreign)} }},
		{1, func() step { return step{"delete-root-ca", n} }},
		{2, func() step { return step{"damage-root-ca", n} }},
		{2, func() step { return step{"create-pod", n, g.of(accounts)} }},
		{2, func() step { return step{"request-token", n, g.of(accounts)} }},
	}
	total := 0
	for _, k := range kinds {
		total += k.weight
	}
	at := g.IntN(total)
	for _, k := range kinds {
		if at -= k.weight; at < 0 {
			return k.make()
		}
	}
	return nil
}
