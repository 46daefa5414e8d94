package main

import (
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestHelp(t *testing.T) {
	for _, command := range []string{"", "tokens", "reach", "inspect", "report", "keys"} {
		t.Run(command, func(t *testing.T) {
			t.Setenv("HOME", "/home/user")
			r := execute(t, time.Time{}, 0, "", append(strings.Fields(command), "--help")...)
			if r.err != nil || r.stderr != "" {
				t.Errorf("%v %s", r.err, r.stderr)
			}
			name := "kubectl-sakeeper"
			if command != "" {
				name = command
			}
			expectGolden(t, filepath.Join("help", name+".txt"), strings.Split(r.stdout, "\nGlobal Flags:")[0])
		})
	}
}

func TestCompletion(t *testing.T) {
	kubeconfig := filepath.Join("testdata", "two-contexts.kubeconfig")
	cases := map[string]struct {
		in   []string
		want string
	}{
		"commands": {in: []string{"__complete", "to"}, want: "tokens\t"},
		"formats":  {in: []string{"__complete", "tokens", "-o", "y"}, want: "table\nwide\njson\nyaml\ncsv\n"},
		"contexts": {in: []string{"__complete", "tokens", "--kubeconfig", kubeconfig, "--context", "st"}, want: "staging\n"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			r := execute(t, time.Time{}, 0, "", tc.in...)
			if r.err != nil || !strings.HasPrefix(r.stdout, tc.want) {
				t.Errorf("got %q %v, want %q", r.stdout, r.err, tc.want)
			}
		})
	}
}
