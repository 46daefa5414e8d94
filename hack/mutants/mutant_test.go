package main

import (
	"bytes"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	cases := map[string]struct {
		in        string
		want      []mutant
		wantError bool
	}{
		"two mutants of a file, and one of another": {
			in: "# comment\n\n== a/b.go\n- x == y\n+ true\n- y\n+\n== c.go\n- z\n+ 0\n",
			want: []mutant{
				{file: "a/b.go", old: "x == y", new: "true"}, {file: "a/b.go", old: "y"}, {file: "c.go", old: "z", new: "0"},
			},
		},
		"a mutant before its file":      {in: "- x\n+ y\n", wantError: true},
		"a mutant without a new text":   {in: "== a.go\n- x\n- y\n+ z\n", wantError: true},
		"a mutant that is cut off":      {in: "== a.go\n- x\n", wantError: true},
		"a mutant that changes nothing": {in: "== a.go\n- x\n+ x\n", wantError: true},
		"any other line":                {in: "== a.go\nx\n", wantError: true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := parse(tc.in)
			if (err != nil) != tc.wantError {
				t.Fatalf("got error %v", err)
			}
			if diff := cmp.Diff(tc.want, got, cmp.AllowUnexported(mutant{})); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// TestTheTableFitsTheSource: a line that a mutant changes is there, once.
func TestTheTableFitsTheSource(t *testing.T) {
	mutants, err := parse(table)
	if err != nil || len(mutants) < 60 {
		t.Errorf("%d mutants, %v", len(mutants), err)
	}
	ofSoak, err := parse(soakTable)
	if err != nil || len(ofSoak) < 10 {
		t.Errorf("%d mutants of the soak, %v", len(ofSoak), err)
	}
	mutants = append(mutants, ofSoak...)
	for _, m := range mutants {
		source, err := os.ReadFile("../../" + m.file)
		if n := bytes.Count(source, []byte(m.old)); err != nil || n != 1 {
			t.Errorf("%s has %q %d times (%v): change the mutant in mutants.txt with it", m.file, m.old, n, err)
		}
	}
}
