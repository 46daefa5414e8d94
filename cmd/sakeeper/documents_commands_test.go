package main

import (
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// helps are the help texts by the words after "sakeeper".
func helps(t *testing.T) map[string]string {
	t.Helper()
	texts := map[string]string{}
	for _, path := range filesBelow(t, "testdata/help", ".txt") {
		name := strings.TrimSuffix(filepath.Base(path), ".txt")
		if name == "sakeeper" {
			name = ""
		}
		texts[strings.ReplaceAll(name, "-", " ")] = mustRead(t, path)
	}
	if len(texts) < 10 {
		t.Fatalf("only %v", slices.Sorted(maps.Keys(texts)))
	}
	return texts
}

var flagInHelp = regexp.MustCompile(`(?m)^\s+(?:-\w, )?--([a-z0-9-]+)`)

// flags are the flags of each command.
func flags(t *testing.T) map[string]map[string]bool {
	t.Helper()
	all := map[string]map[string]bool{}
	for command, text := range helps(t) {
		all[command] = map[string]bool{"help": true}
		text, _, _ = strings.Cut(text, "\nExample:\n")
		for _, match := range flagInHelp.FindAllStringSubmatch(text, -1) {
			all[command][match[1]] = true
		}
	}
	return all
}

// code returns the commands of a page: the lines of its blocks, without comments and with
// continued lines in one, and what stands between backquotes in its text.
func code(text string) []string {
	var lines []string
	for _, block := range blocks(text) {
		block = strings.ReplaceAll(block, "\\\n", " ")
		for line := range strings.Lines(block) {
			line, _, _ = strings.Cut(strings.TrimSpace(line), " #")
			lines = append(lines, line)
		}
	}
	for _, span := range codeSpan.FindAllString(fenced.ReplaceAllString(text, ""), -1) {
		lines = append(lines, strings.Trim(span, "`"))
	}
	return lines
}

// blocks are fenced, or indented by four columns.
func blocks(text string) []string {
	all := fenced.FindAllString(text, -1)
	return append(all, regexp.MustCompile(`(?m)(?:^    [^\n]*\n)+`).FindAllString(fenced.ReplaceAllString(text, ""), -1)...)
}

var (
	ourCommand  = regexp.MustCompile(`(?:^|[ (/;])sakeeper((?: +[^\s|;&>)]+)*)`)
	makeCommand = regexp.MustCompile(`(?:^|[;&] )make((?: +[^\s|;&>)]+)+)`)
)

// TestCommandsInDocuments: each sakeeper command exists, with its flags, and each target of make.
func TestCommandsInDocuments(t *testing.T) {
	known, makefile := flags(t), mustRead(t, filepath.Join(repository, "Makefile"))
	commands, targets := 0, 0
	for page, text := range instructions(t) {
		for _, line := range code(text) {
			line = strings.ReplaceAll(line, "kubectl sakeeper", "kubectl-sakeeper") // another program
			if strings.HasPrefix(line, "helm ") || strings.HasPrefix(line, "# helm ") {
				continue // sakeeper is the name of a release and of a chart
			}
			for _, match := range ourCommand.FindAllStringSubmatch(line, -1) {
				if expectCommand(t, page, strings.Fields(match[1]), known) {
					commands++
				}
			}
			for _, match := range makeCommand.FindAllStringSubmatch(line, -1) {
				for word := range strings.FieldsSeq(match[1]) {
					targets++
					if variable, _, ok := strings.Cut(word, "="); ok && !regexp.MustCompile(`(?m)^`+variable+`\s+\?=`).MatchString(makefile) {
						t.Errorf("%s: Makefile has no variable %s", page, variable)
					} else if !ok && !regexp.MustCompile(`(?m)^[a-z -]*\b`+regexp.QuoteMeta(word)+`\b[a-z -]*:`).MatchString(makefile) {
						t.Errorf("%s: Makefile has no target %s", page, word)
					}
				}
			}
		}
	}
	if commands < 30 || targets < 15 {
		t.Errorf("only %d commands and %d targets were found", commands, targets)
	}
}

// expectCommand checks the words after "sakeeper", if they are a command.
func expectCommand(t *testing.T, page string, words []string, known map[string]map[string]bool) bool {
	t.Helper()
	if len(words) == 0 || !regexp.MustCompile(`^(--)?[a-z]`).MatchString(words[0]) {
		return false
	}
	command := ""
	for len(words) > 0 && known[strings.TrimSpace(command+" "+words[0])] != nil {
		command, words = strings.TrimSpace(command+" "+words[0]), words[1:]
	}
	if len(words) > 0 && !strings.HasPrefix(words[0], "--") && hasSubcommands(known, command) {
		t.Errorf("%s: there is no command sakeeper %s %s", page, command, words[0])
		return true
	}
	for _, word := range words {
		if flag, ok := strings.CutPrefix(word, "--"); ok {
			name, _, _ := strings.Cut(flag, "=")
			if !known[command][name] {
				t.Errorf("%s: sakeeper %s has no flag --%s", page, command, name)
			}
		}
	}
	return true
}

func hasSubcommands(known map[string]map[string]bool, command string) bool {
	for name := range known {
		if command == "" || strings.HasPrefix(name, command+" ") {
			return true
		}
	}
	return false
}

// foreign are flags of other programs that the pages name.
func foreign() []string {
	return []string{
		// kube-apiserver and kube-controller-manager
		"admission-control-config-file", "authentication-token-webhook-config-file", "controllers", "disable-admission-plugins",
		"enable-aggregator-routing", "node-monitor-grace-period", "service-account-max-token-expiration", "service-account-signing-key-file",
		// others
		"name", "config", "take-ownership", "force-conflicts", "create-namespace", "reset-then-reuse-values",
	}
}

// TestFlagsInDocuments: a flag that a text names is one of sakeeper, or of another program.
func TestFlagsInDocuments(t *testing.T) {
	all := map[string]bool{}
	for _, of := range flags(t) {
		maps.Copy(all, of)
	}
	found := 0
	for page, text := range instructions(t) {
		if strings.HasPrefix(page, "cmd/kubectl-sakeeper/") {
			continue // another program
		}
		for _, span := range codeSpan.FindAllString(fenced.ReplaceAllString(text, ""), -1) {
			match := regexp.MustCompile("^`--([a-z][a-z0-9-]*)").FindStringSubmatch(span)
			if match == nil {
				continue
			}
			found++
			if !all[match[1]] && !slices.Contains(foreign(), match[1]) {
				t.Errorf("%s: no program has the flag --%s", page, match[1])
			}
		}
	}
	if found < 50 {
		t.Errorf("only %d flags were found", found)
	}
}
