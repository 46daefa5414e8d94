package main

import (
	"context"
	"fmt"
	"maps"
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

// shrink returns a script that still fails, and of which no single step can be left out, unless ctx
// ends before. It is delta debugging: smaller and smaller pieces are left out.
func shrink(ctx context.Context, failing script, fails func(script) bool) script {
	for size := len(failing) / 2; size > 0; {
		shorter := false
		for at := 0; at < len(failing) && ctx.Err() == nil; {
			candidate := slices.Concat(failing[:at], failing[min(at+size, len(failing)):])
			if fails(candidate) {
				failing, shorter = candidate, true
			} else {
				at += size
			}
		}
		if ctx.Err() != nil {
			return failing
		}
		if !shorter || size > 1 {
			size /= 2
		}
	}
	return failing
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
type generator struct {
	*rand.Rand

	// there is what exists if every step so far did what it should, by name or by namespace and name.
	there, saved map[string]bool
}

func newGenerator(seed uint64) *generator {
	return &generator{Rand: rand.New(rand.NewPCG(seed, 0)), there: map[string]bool{}, saved: map[string]bool{}}
}

func (g *generator) of(list []string) string { return list[g.IntN(len(list))] }

// pick returns one of names, mostly one that exists in a namespace, or does not.
func (g *generator) pick(namespace string, names []string, exists bool) string {
	fit := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return g.there[key(namespace, name)] != exists })
	if len(fit) == 0 || g.IntN(10) == 0 {
		fit = names
	}
	return g.of(fit)
}

// first makes what the first round begins with.
func (g *generator) first() script {
	var s script
	for _, n := range namespaces {
		s = append(s, step{"create-namespace", n}, step{"create-account", n, "a0"}, step{"create-account", n, "a1"})
	}
	s = append(s, step{"create-token-secret", "n0", "a0-token-bcdfg", "a0"}, step{"create-managed", "n0", "m0", "a0"},
		step{"create-foreign", "n0", "foreign-0", "Opaque"}, step{"save-etcd"})
	for _, one := range s {
		g.follow(one)
	}
	return s
}

// round makes the steps up to the next check: a few disturbances, with users at work before, during
// and after them. What a disturbance broke is mended later, or by the check.
func (g *generator) round() script {
	var s script
	add := func(one step) {
		g.follow(one)
		s = append(s, one)
	}
	for _, d := range g.disturbances() {
		for range 3 + g.IntN(5) {
			for _, one := range g.use() {
				add(one)
			}
		}
		add(d)
	}
	for range 3 + g.IntN(5) {
		for _, one := range g.use() {
			add(one)
		}
	}
	return append(s, step{checkStep})
}

// follow notes what a step changes.
func (g *generator) follow(s step) {
	verb, kind, _ := strings.Cut(s[0], "-")
	name := strings.TrimSuffix(key(s.arg(0), s.arg(1)), "/")
	switch {
	case s[0] == "save-etcd":
		g.saved = maps.Clone(g.there)
	case s[0] == "restore-etcd":
		g.there = maps.Clone(g.saved)
	case s[0] == "delete-namespace":
		maps.DeleteFunc(g.there, func(k string, _ bool) bool { return namespaceOf(k) == s.arg(0) })
	case kind == "root-ca" || kind == "pod":
	case verb == "create":
		g.there[name] = true
		if kind == "namespace" {
			g.there[key(name, "default")] = true
		}
	case verb == "delete" && !strings.HasSuffix(name, "/default"):
		delete(g.there, name)
	}
}

// disturbances makes what operators do in a round.
func (g *generator) disturbances() script {
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

func (g *generator) pause() step { return step{"pause", g.of([]string{"500", "3000", "12000"})} }

// use makes what a user does.
func (g *generator) use() script {
	n := g.of(namespaces)
	if !g.there[n] && g.IntN(3) > 0 {
		return script{{"create-namespace", n}}
	}
	account, secret := g.pick(n, accounts, true), g.pick(n, tokenSecrets, true)
	free, other := g.pick(n, tokenSecrets, false), g.pick(n, foreign, true)
	filled, own := g.pick(n, managed, true), g.pick(n, managed, false)
	uses := []struct {
		weight int
		steps  script
	}{
		{1, script{{"delete-namespace", n}}},
		{3, script{{"create-account", n, g.pick(n, accounts, false)}}},
		{2, script{{"delete-account", n, account}}},
		{2, script{{"replace-account", n, account}}},
		{1, script{{"replace-account", n, account}, {"create-token-secret", n, free, account}}},
		{6, script{{"create-token-secret", n, free, account}}},
		{2, script{{"delete-secret", n, secret}}},
		{3, script{{"damage-token-secret", n, secret, g.of([]string{"token", "ca.crt", "namespace", "exchange"})}}},
		{2, script{{"refer", n, account, secret}}},
		{1, script{{"refer", n, account, other}}},
		// A reference goes, and the others stay.
		{2, script{{"create-token-secret", n, free, account}, {"refer", n, account, other}, {"refer", n, account, free}, {"delete-secret", n, free}}},
		{3, script{{"create-managed", n, own, account}}},
		{1, script{{"delete-secret", n, filled}}},
		{3, script{{"damage-managed", n, filled, g.of([]string{"token", "ca.crt", "rotate", "expired"})}}},
		{3, script{{"create-foreign", n, g.pick(n, foreign, false), g.of([]string{"Opaque", "kubernetes.io/basic-auth", "example.com/mine"})}}},
		{1, script{{"delete-secret", n, other}}},
		{1, script{{"delete-root-ca", n}}},
		{2, script{{"damage-root-ca", n}}},
		{2, script{{"create-pod", n, account}}},
		{2, script{{"request-token", n, account}}},
	}
	total := 0
	for _, u := range uses {
		total += u.weight
	}
	at := g.IntN(total)
	for _, u := range uses {
		if at -= u.weight; at < 0 {
			return u.steps
		}
	}
	return nil
}
