package main

import (
	"bytes"
	"strings"
	"testing"
	"text/template"
)

// TestMergedTemplatesRenderEachVariant: and the base, if no condition holds.
func TestMergedTemplatesRenderEachVariant(t *testing.T) {
	tests := map[string]struct{ base, a, b string }{
		"nothing differs":             {"1 2 3", "1 2 3", "1 2 3"},
		"one adds":                    {"1 2 3", "1 2 x y 3", "1 2 3"},
		"both add in one place":       {"1 2 3", "1 2 3 x", "1 2 3 y"},
		"one removes":                 {"1 2 3 4", "1 4", "1 2 3 4"},
		"one replaces":                {"1 2 3 4", "1 x y 4", "1 2 3 4"},
		"one adds where one removes":  {"1 2 3 4", "1 4", "1 2 x 3 4"},
		"both remove different lines": {"1 2 3 4", "1 3 4", "1 2 3"},
		"neighbours":                  {"1 2 3 4", "1 3 4", "1 2 4"},
		"everything":                  {"1 2", "x", "1 2"},
		"lines that are alike":        {"1 1 2 1", "1 2 1 1", "1 1 2 1"},
		"at the beginning":            {"1 2", "x 1 2", "y 1 2"},
	}
	for name, test := range tests {
		base := strings.Fields(test.base)
		merged := merge(base, []edit{diff(base, strings.Fields(test.a), ".A"), diff(base, strings.Fields(test.b), ".B")})
		for _, values := range []struct {
			A, B bool
			want string
		}{{false, false, test.base}, {true, false, test.a}, {false, true, test.b}} {
			var out bytes.Buffer
			parsed, err := template.New("").Parse(strings.Join(merged, "\n"))
			must(t, err)
			must(t, parsed.Execute(&out, values))
			if got := strings.Join(strings.Fields(out.String()), " "); got != values.want {
				t.Errorf("%s: %+v renders %q:\n%s", name, values, got, strings.Join(merged, "\n"))
			}
		}
	}
}
