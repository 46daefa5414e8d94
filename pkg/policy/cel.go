package policy

import (
	"regexp"
	"strings"
)

// quote returns text as a string literal of CEL. Settings with control characters are refused before.
func quote(text string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(text) + "'"
}

// list returns the texts as a list literal of CEL.
func list(texts []string) string {
	quoted := make([]string, len(texts))
	for i, text := range texts {
		quoted[i] = quote(text)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// optional returns the expression for the optional value of a path such as "csi.nodePublishSecretRef".
func optional(object, path string) string {
	return object + ".?" + strings.ReplaceAll(path, ".", ".?")
}

var place = regexp.MustCompile(`\{[a-z]+\}`)

// sentence returns the expression for a text with places such as "{name}", for which values has
// expressions of type string.
func sentence(text string, values map[string]string) string {
	var parts []string
	literal := func(text string) {
		if text != "" {
			parts = append(parts, quote(text))
		}
	}
	end := 0
	for _, at := range place.FindAllStringIndex(text, -1) {
		literal(text[end:at[0]])
		parts = append(parts, values[text[at[0]:at[1]]])
		end = at[1]
	}
	literal(text[end:])
	return strings.Join(parts, " + ")
}
