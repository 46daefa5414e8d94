package main

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

const (
	repository      = "../.."
	troubleshooting = "cmd/sakeeper/troubleshooting.md"
)

// documents returns the pages of the repository, by their paths in it.
func documents(t *testing.T) map[string]string {
	t.Helper()
	pages := map[string]string{}
	for _, path := range filesBelow(t, repository, ".md") {
		relative, err := filepath.Rel(repository, path)
		if err != nil {
			t.Fatal(err)
		}
		pages[relative] = mustRead(t, path)
	}
	if len(pages) < 15 {
		t.Fatalf("only %v", slices.Sorted(maps.Keys(pages)))
	}
	return pages
}

// instructions are the pages that say how things are now, unlike the change log.
func instructions(t *testing.T) map[string]string {
	t.Helper()
	pages := documents(t)
	delete(pages, "CHANGELOG.md")
	return pages
}

func filesBelow(t *testing.T, root, extension string) []string {
	t.Helper()
	var paths []string
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() && slices.Contains([]string{".git", "bin", "dist"}, entry.Name()) {
			return filepath.SkipDir
		}
		if err == nil && strings.HasSuffix(path, extension) {
			paths = append(paths, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

func mustRead(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func TestReadmeFitsOnTwoScreens(t *testing.T) {
	lines := strings.Split(strings.TrimSuffix(mustRead(t, filepath.Join(repository, "README.md")), "\n"), "\n")
	if len(lines) > 100 {
		t.Errorf("README has %d lines, more than 100", len(lines))
	}
	for i, line := range lines {
		if n := utf8.RuneCountInString(line); n > 120 {
			t.Errorf("line %d of README has %d characters, more than 120", i+1, n)
		}
	}
}

var (
	fenced     = regexp.MustCompile("(?ms)^ *```.*?^ *```")
	codeSpan   = regexp.MustCompile("`[^`\n]*`")
	link       = regexp.MustCompile(`\]\(([^)#:\s]*)(?:#([^)\s]*))?\)`)
	heading    = regexp.MustCompile(`(?m)^#+ (.*)$`)
	punctuated = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// TestLinksOfDocuments: what is linked to is there, with its heading.
func TestLinksOfDocuments(t *testing.T) {
	pages := documents(t)
	for page, text := range pages {
		text = codeSpan.ReplaceAllString(fenced.ReplaceAllString(text, ""), "")
		for _, match := range link.FindAllStringSubmatch(text, -1) {
			target := page
			if match[1] != "" {
				target = filepath.Join(filepath.Dir(page), match[1])
			}
			if _, err := os.Stat(filepath.Join(repository, target)); err != nil {
				t.Errorf("%s: %v", page, err)
			} else if match[2] != "" && !slices.Contains(anchors(pages[target]), match[2]) {
				t.Errorf("%s: %s has no heading #%s", page, target, match[2])
			}
		}
	}
}

// anchors are the names that GitHub gives to the headings of a page.
func anchors(text string) []string {
	var all []string
	for _, h := range heading.FindAllStringSubmatch(fenced.ReplaceAllString(text, ""), -1) {
		all = append(all, strings.ReplaceAll(punctuated.ReplaceAllString(strings.ToLower(h[1]), ""), " ", "-"))
	}
	return all
}

// TestPathsInDocuments: files of the repository that are named are there.
func TestPathsInDocuments(t *testing.T) {
	ours := regexp.MustCompile("^`((?:\\.github|cmd|e2e|hack|manifests|pkg)/[\\w./-]+)`$")
	for page, text := range instructions(t) {
		for _, span := range codeSpan.FindAllString(fenced.ReplaceAllString(text, ""), -1) {
			if match := ours.FindStringSubmatch(span); match != nil {
				if _, err := os.Stat(filepath.Join(repository, match[1])); err != nil {
					t.Errorf("%s: %v", page, err)
				}
			}
		}
	}
}

var eventReason = regexp.MustCompile(`(?m)^\s*[Rr]eason\w*\s*=\s*"(\w+)"`)

// TestTroubleshootingNamesEveryEvent: it says of each reason what to do about it, and of no other.
func TestTroubleshootingNamesEveryEvent(t *testing.T) {
	chapter := mustRead(t, filepath.Join(repository, troubleshooting))
	reasons := map[string]bool{}
	for _, path := range slices.Concat(filesBelow(t, ".", ".go"), filesBelow(t, "../../pkg", ".go")) {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		for _, match := range eventReason.FindAllStringSubmatch(mustRead(t, path), -1) {
			reasons[match[1]] = true
			if !strings.Contains(chapter, "`"+match[1]+"`") {
				t.Errorf("%s says nothing of the event %s, of %s", troubleshooting, match[1], path)
			}
		}
	}
	if len(reasons) < 20 {
		t.Errorf("only %d reasons were found", len(reasons))
	}
	_, events, _ := strings.Cut(chapter, "\n## Events\n")
	events, _, _ = strings.Cut(events, "\n## ")
	for _, row := range regexp.MustCompile("(?m)^\\| ((?:`\\w+`(?:, )?)+)").FindAllStringSubmatch(events, -1) {
		for _, reason := range codeSpan.FindAllString(row[1], -1) {
			if !reasons[strings.Trim(reason, "`")] {
				t.Errorf("%s: there is no event %s", troubleshooting, reason)
			}
		}
	}
}

// TestMetricsInDocuments: every metric is in a chapter, and every metric in a chapter is exported.
func TestMetricsInDocuments(t *testing.T) {
	exported := exportedMetrics(t)
	named := map[string]bool{}
	for page, text := range instructions(t) {
		for _, name := range regexp.MustCompile(`\bsakeeper_[a-z_]+\b`).FindAllString(text, -1) {
			name = family(name, exported)
			named[name] = true
			if _, ok := exported[name]; !ok {
				t.Errorf("%s: no process exports %s", page, name)
			}
		}
	}
	for name := range exported {
		if strings.HasPrefix(name, "sakeeper_") && !named[name] {
			t.Errorf("no chapter has the metric %s", name)
		}
	}
}

// TestPromisesHaveTests: the tests that e2e/README.md and the threat model name are there, in the package
// that it names.
func TestPromisesHaveTests(t *testing.T) {
	for page, least := range map[string]int{"e2e/README.md": 20, ".github/SECURITY.md": 20} {
		names := regexp.MustCompile("`(Test\\w+)`(?:\\s+in\\s+`([\\w/-]+)`)?").FindAllStringSubmatch(mustRead(t, filepath.Join(repository, page)), -1)
		if len(names) < least {
			t.Errorf("%s names only %d tests", page, len(names))
		}
		for _, name := range names {
			where := "e2e"
			if name[2] != "" {
				where = name[2]
			}
			found := slices.ContainsFunc(filesBelow(t, filepath.Join(repository, where), "_test.go"), func(path string) bool {
				return strings.Contains(mustRead(t, path), "\nfunc "+name[1]+"(")
			})
			if !found {
				t.Errorf("%s: there is no test %s in %s", page, name[1], where)
			}
		}
	}
}
