package main

import (
	"fmt"
	"path"
	"strings"
)

// mutant is a text in a file that becomes another.
type mutant struct{ file, old, new string }

// tests returns the package whose tests must notice the mutant.
func (m mutant) tests() []string { return []string{"./" + path.Dir(m.file)} }

func (m mutant) String() string { return fmt.Sprintf("%s → %s", m.old, m.new) }

// parse reads mutants.txt, which describes its form.
func parse(text string) ([]mutant, error) {
	var mutants []mutant
	var m mutant
	number := 0
	for line := range strings.Lines(text) {
		number++
		mark, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch {
		case mark == "" || mark == "#":
		case mark == "==" && rest != "" && m.old == "":
			m.file = rest
		case mark == "-" && rest != "" && m.old == "" && m.file != "":
			m.old = rest
		case mark == "+" && m.old != "" && m.old != rest:
			m.new = rest
			mutants = append(mutants, m)
			m = mutant{file: m.file}
		default:
			return nil, fmt.Errorf("line %d of mutants.txt is out of place: %s", number, line)
		}
	}
	if m.old != "" {
		return nil, fmt.Errorf("mutants.txt ends after %q", m.old)
	}
	return mutants, nil
}
