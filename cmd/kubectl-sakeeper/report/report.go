// Package report is the subcommand that writes the findings as one HTML page.
package report

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/sakeeper/sakeeper/cmd/kubectl-sakeeper/options"
	"github.com/sakeeper/sakeeper/cmd/kubectl-sakeeper/tokens"
	"github.com/sakeeper/sakeeper/pkg/inventory"
	"github.com/sakeeper/sakeeper/pkg/inventory/collect"
)

// NewCommand makes the command.
func NewCommand(o *options.Options) *cobra.Command {
	var selection tokens.Selection
	cmd := &cobra.Command{
		Use:   "report",
		Short: "Write a report as one HTML page: figures, charts, what to do first, all tokens",
		Long: `Writes the report to the standard output: one HTML page that needs no network, with
the figures, charts, the 20 tokens to do something about first, and a table of all
that can be searched and sorted. The page names Secrets and accounts, and holds no
token.`,
		Example: `  kubectl sakeeper report -A > report.html`,
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return run(cmd.Context(), o, &selection) },
	}
	selection.AddFlags(cmd)
	return cmd
}

func run(ctx context.Context, o *options.Options, selection *tokens.Selection) error {
	if o.Width > 0 {
		return errors.New("the report is a page for browsers: send it to a file, as in 'kubectl sakeeper report -A > report.html'")
	}
	result, err := selection.Collect(ctx, o)
	if err != nil {
		return err
	}
	p := newPage(inventory.Find(result.Objects), result.Now, result.Namespace, o.Version)
	for _, m := range result.Missing {
		p.Missing = append(p.Missing, fmt.Sprintf("%s: %s.", m.Affects, reason(m)))
	}
	return errors.Join(p.write(o.Out), o.PrintMissing(result))
}

func reason(m collect.Missing) string {
	text := m.Right + " was interrupted"
	switch {
	case m.Forbidden:
		text = "the right to " + m.Right + " is missing"
	case m.Absent():
		text = "the API server does not know '" + m.Right + "'"
	}
	if m.Namespace != "" {
		text += " in namespace " + m.Namespace
	}
	return text
}

func (p *page) write(w io.Writer) error {
	t, err := parse()
	if err != nil {
		return err
	}
	return t.Execute(w, p)
}
