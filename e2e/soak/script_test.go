package main

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func rounds(seed uint64, n int) script {
	g := newGenerator(seed)
	s := g.first()
	for range n {
		s = append(s, g.round()...)
	}
	return s
}

func TestASeedAlwaysMakesTheSameScript(t *testing.T) {
	s := rounds(1, 20)
	if diff := cmp.Diff(s, rounds(1, 20)); diff != "" {
		t.Errorf("the second differs:\n%s", diff)
	}
	if cmp.Equal(s, rounds(2, 20)) {
		t.Error("another seed makes the same script")
	}
}

func TestAScriptIsReadAsItWasWritten(t *testing.T) {
	want := rounds(1, 200)
	got, err := parseScript("# a comment\n\n" + want.String())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	made := map[string]bool{}
	for _, one := range got {
		made[one[0]] = true
	}
	for name := range actions {
		if !made[name] {
			t.Errorf("200 rounds have no %s", name)
		}
	}
	if _, err := parseScript("destroy n0\n"); err == nil {
		t.Error("a step that does not exist was read")
	}
}

func TestShrinkLeavesOutWhatIsNotNeeded(t *testing.T) {
	var failing script
	for i := range 50 {
		failing = append(failing, step{"pause", string(rune('A' + i))})
	}
	needed := script{failing[3], failing[29], failing[30]}
	candidates := 0
	got := shrink(t.Context(), failing, func(candidate script) bool {
		candidates++
		return !slices.ContainsFunc(needed, func(n step) bool {
			return !slices.ContainsFunc(candidate, func(c step) bool { return slices.Equal(c, n) })
		})
	})
	if diff := cmp.Diff(needed, got); diff != "" || candidates > 150 {
		t.Errorf("after %d candidates (-want +got):\n%s", candidates, diff)
	}
}
