package printer

import (
	"bytes"
	"testing"
)

func TestWrite(t *testing.T) {
	table := Table{
		Columns:  []Column{{Name: "Name"}, {Name: "Place", Dispensable: 1}, {Name: "Note", Dispensable: 2}, {Name: "More", Wide: true}},
		Rows:     [][]string{{"a", "here", "", "x"}, {"\x1b[2Jb", "there", "=1+1", "-Ab_c"}, {"c", "-1+1", "ü", ""}},
		Document: map[string]string{"html": "<b>"},
	}
	cases := map[string]struct {
		format Format
		width  int
		want   string
	}{
		"a table":            {format: Plain, want: "NAME    PLACE   NOTE\na       here\n?[2Jb   there   =1+1\nc       -1+1    ü\n"},
		"wide":               {format: Wide, want: "NAME    PLACE   NOTE   MORE\na       here           x\n?[2Jb   there   =1+1   -Ab_c\nc       -1+1    ü\n"},
		"that just fits":     {format: Plain, width: 20, want: "NAME    PLACE   NOTE\na       here\n?[2Jb   there   =1+1\nc       -1+1    ü\n"},
		"a narrow terminal":  {format: Plain, width: 19, want: "NAME    PLACE\na       here\n?[2Jb   there\nc       -1+1\n"},
		"too narrow for any": {format: Plain, width: 2, want: "NAME\na\n?[2Jb\nc\n"},
		"csv, no formulas":   {format: CSV, want: "Name,Place,Note,More\na,here,,x\n?[2Jb,there,'=1+1,-Ab_c\nc,'-1+1,ü,\n"},
		"json":               {format: JSON, want: "{\n  \"html\": \"<b>\"\n}\n"},
		"yaml":               {format: YAML, want: "html: <b>\n"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			if err := table.Write(&out, tc.format, tc.width); err != nil || out.String() != tc.want {
				t.Errorf("%v, got\n%s\nwant\n%s", err, &out, tc.want)
			}
		})
	}
}
