package main

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/sakeeper/sakeeper/pkg/inventory"
	"github.com/sakeeper/sakeeper/pkg/inventory/reach"
)

// TestReadme finds what the chapter forgot: a verdict, a reach or a reason; and outputs that are not
// those of the commands.
func TestReadme(t *testing.T) {
	content, err := os.ReadFile("README.md")
	mustNil(t, err)
	text := string(content)
	words := reach.Reasons()
	for _, verdict := range inventory.Verdicts() {
		words = append(words, string(verdict))
	}
	for _, level := range reach.Levels() {
		words = append(words, level.String())
	}
	for _, word := range words {
		if !strings.Contains(text, "`"+word+"`") {
			t.Errorf("README.md does not explain `%s`", word)
		}
	}
	outputs := map[string]string{ // the command line, and the file with its output
		"kubectl sakeeper tokens -A --deep":  "tokens.txt",
		"kubectl sakeeper reach ci/deployer": "reach.txt",
		"kubectl sakeeper keys --deep":       "keys.txt",
		"kubectl sakeeper inspect -":         "inspect-former.txt",
	}
	lines := strings.Split(text, "\n")
	for command, file := range outputs {
		golden, err := os.ReadFile("testdata/" + file)
		mustNil(t, err)
		i := slices.Index(lines, "$ "+command)
		if i < 0 {
			t.Errorf("README.md does not show %q", command)
			continue
		}
		for line := range strings.SplitSeq(strings.TrimSpace(string(golden)), "\n") {
			i++
			if lines[i] == "..." { // the rest is left out
				break
			}
			if lines[i] != line {
				t.Errorf("README.md shows under %q\n%s\nnot\n%s", command, lines[i], line)
			}
		}
	}
}
