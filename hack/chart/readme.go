package main

import (
	"fmt"
	"regexp"
	"strings"
)

const readmeTop = `# The chart of sakeeper

Made from the same manifests as the overlays of kustomize: [install](../../README.md#with-helm) has the commands, and
which mode is yours. This page and the templates are made by ` + "`make manifests`" + `; a wrong value is refused with its path.

| value | default | |
|---|---|---|
`

var valueLine = regexp.MustCompile(`^( *)(\w+):(?: (.*))?$`)

// readme returns the table of the values: each has its comment before it.
func readme(values string) string {
	var text strings.Builder
	text.WriteString(readmeTop)
	var path, comment []string
	for line := range strings.Lines(values) {
		line = strings.TrimSuffix(line, "\n")
		if said, ok := strings.CutPrefix(strings.TrimSpace(line), "# "); ok {
			comment = append(comment, said)
			continue
		}
		match := valueLine.FindStringSubmatch(line)
		if match == nil {
			comment = nil // a paragraph about the whole file
			continue
		}
		path = append(path[:len(match[1])/2], match[2])
		value := match[3]
		if value != "" {
			value = "`" + value + "`"
		}
		fmt.Fprintf(&text, "| `%s` | %s | %s |\n", strings.Join(path, "."), value, strings.Join(comment, " "))
		comment = nil
	}
	return text.String()
}
