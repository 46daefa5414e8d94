// Package printer writes rows as a table, CSV, JSON or YAML.
package printer

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"
)

// Format is the value of -o.
type Format string

// The formats.
const (
	Plain Format = "table"
	Wide  Format = "wide"
	JSON  Format = "json"
	YAML  Format = "yaml"
	CSV   Format = "csv"
)

func formats() []string {
	return []string{string(Plain), string(Wide), string(JSON), string(YAML), string(CSV)}
}

// String returns the name of the format.
func (f *Format) String() string { return string(*f) }

// Set is for flags.
func (f *Format) Set(value string) error {
	if !slices.Contains(formats(), value) {
		return fmt.Errorf("is not one of %s", strings.Join(formats(), ", "))
	}
	*f = Format(value)
	return nil
}

// Type is for the help.
func (f *Format) Type() string { return "string" }

// AddFlag adds -o.
func (f *Format) AddFlag(cmd *cobra.Command) {
	*f = Plain
	cmd.Flags().VarP(f, "output", "o", "Format of the output: "+strings.Join(formats(), ", ")+".")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats(), cobra.ShellCompDirectiveNoFileComp)) // the flag exists
}

// Column is a column of a table.
type Column struct {
	Name string
	// Wide columns are in the formats wide and csv only.
	Wide bool
	// Dispensable columns are left out of a table that is wider than the terminal, those with the
	// highest number first. 0: never.
	Dispensable int
}

// Table is what is printed.
type Table struct {
	Columns []Column
	Rows    [][]string
	// Document is what the formats json and yaml print.
	Document any
}

// Write writes the table. width is the number of columns of the terminal; 0: there is no limit.
func (t Table) Write(w io.Writer, format Format, width int) error {
	switch format {
	case JSON:
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		encoder.SetEscapeHTML(false)
		return encoder.Encode(t.Document)
	case YAML:
		text, err := yaml.Marshal(t.Document)
		if err == nil {
			_, err = w.Write(text)
		}
		return err
	case CSV:
		return t.writeCSV(w)
	default:
		return t.writeText(w, format == Wide, width)
	}
}

func (t Table) writeCSV(w io.Writer) error {
	writer := csv.NewWriter(w)
	var names []string
	for _, column := range t.Columns {
		names = append(names, column.Name)
	}
	_ = writer.Write(names) // Error returns it
	for _, row := range t.Rows {
		cells := make([]string, len(row))
		for i, cell := range row {
			cells[i] = clean(cell)
			if isFormula(cell) {
				cells[i] = "'" + cells[i]
			}
		}
		_ = writer.Write(cells)
	}
	writer.Flush()
	return writer.Error()
}

// isFormula returns true for a text that a spreadsheet would compute. An id of letters and digits may
// begin with a minus sign.
func isFormula(cell string) bool {
	notInID := func(r rune) bool {
		return r != '-' && r != '_' && (r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r))
	}
	return cell != "" && strings.ContainsRune("=+-@\t\r", rune(cell[0])) && strings.ContainsFunc(cell, notInID)
}

const gap = 3 // between two columns, as in kubectl

func (t Table) writeText(w io.Writer, wide bool, width int) error {
	widths := make([]int, len(t.Columns))
	var shown []int
	for i, column := range t.Columns {
		if column.Wide && !wide {
			continue
		}
		shown = append(shown, i)
		widths[i] = utf8.RuneCountInString(column.Name)
		for _, row := range t.Rows {
			widths[i] = max(widths[i], utf8.RuneCountInString(clean(row[i])))
		}
	}
	shown = t.fit(shown, widths, width)
	var text strings.Builder
	line := func(cell func(i int) string) {
		var one strings.Builder
		for n, i := range shown {
			value := clean(cell(i))
			one.WriteString(value)
			if n < len(shown)-1 {
				one.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(value)+gap))
			}
		}
		text.WriteString(strings.TrimRight(one.String(), " ") + "\n")
	}
	line(func(i int) string { return strings.ToUpper(t.Columns[i].Name) })
	for _, row := range t.Rows {
		line(func(i int) string { return row[i] })
	}
	_, err := io.WriteString(w, text.String())
	return err
}

// fit leaves out columns until the table is not wider than the terminal.
func (t Table) fit(shown, widths []int, width int) []int {
	for width > 0 {
		total, worst := -gap, -1
		for n, i := range shown {
			total += widths[i] + gap
			if d := t.Columns[i].Dispensable; d > 0 && (worst < 0 || d > t.Columns[shown[worst]].Dispensable) {
				worst = n
			}
		}
		if total <= width || worst < 0 {
			break
		}
		shown = slices.Delete(shown, worst, worst+1)
	}
	return shown
}

// clean replaces what a terminal would obey: names in tokens are whatever their issuer wrote.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
}

// Clean is text without what a terminal would obey.
func Clean(text string) string { return clean(text) }
