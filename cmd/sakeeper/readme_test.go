package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var eventReason = regexp.MustCompile(`(?m)^\s*[Rr]eason\w*\s*=\s*"(\w+)"`)

// TestTroubleshootingNamesEveryEvent: README says of each reason what to do about it.
func TestTroubleshootingNamesEveryEvent(t *testing.T) {
	readme := mustRead(t, "../../README.md")
	found := 0
	for _, root := range []string{".", "../../pkg"} {
		err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			for _, match := range eventReason.FindAllStringSubmatch(mustRead(t, path), -1) {
				found++
				if !strings.Contains(readme, "`"+match[1]+"`") {
					t.Errorf("README says nothing of the event %s, of %s", match[1], path)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if found < 20 {
		t.Errorf("only %d reasons were found", found)
	}
}

// TestLinksOfReadme: what is linked to is there, with its heading.
func TestLinksOfReadme(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:]*)(?:#([^)]*))?\)`)
	heading := regexp.MustCompile(`(?m)^#+ (.*)$`)
	for _, page := range []string{"../../README.md", "README.md"} {
		for _, match := range link.FindAllStringSubmatch(mustRead(t, page), -1) {
			target := page
			if match[1] != "" {
				target = filepath.Join(filepath.Dir(page), match[1])
			}
			if match[2] == "" {
				if _, err := os.Stat(target); err != nil {
					t.Errorf("%s: %v", page, err)
				}
				continue
			}
			anchors := map[string]bool{}
			for _, h := range heading.FindAllStringSubmatch(mustRead(t, target), -1) {
				anchors[regexp.MustCompile(`[^a-z0-9 -]`).ReplaceAllString(strings.ToLower(h[1]), "")] = true
			}
			if !anchors[strings.ReplaceAll(match[2], "-", " ")] && !anchors[match[2]] {
				t.Errorf("%s: %s has no heading #%s", page, match[1], match[2])
			}
		}
	}
}

func mustRead(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}
