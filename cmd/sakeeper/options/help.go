package options

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	cliflag "k8s.io/component-base/cli/flag"
)

// helpWidth does not depend on the terminal, so that the help text can be compared with a file.
const helpWidth = 100

// AddSections gives cmd the flags of all sections, and a help text that lists them by section.
func AddSections(cmd *cobra.Command, sections *cliflag.NamedFlagSets) {
	for _, name := range sections.Order {
		cmd.Flags().AddFlagSet(sections.FlagSets[name])
	}
	cmd.SetHelpFunc(func(cmd *cobra.Command, _ []string) {
		var text bytes.Buffer
		fmt.Fprintf(&text, "%s\n\nUsage:\n  %s\n", cmd.Long, cmd.UseLine())
		if cmd.Example != "" {
			fmt.Fprintf(&text, "\nExamples:\n%s\n", cmd.Example)
		}
		cliflag.PrintSections(&text, *sections, helpWidth)
		for line := range strings.Lines(text.String()) {
			_, _ = io.WriteString(cmd.OutOrStdout(), strings.TrimRight(line, " \n")+"\n")
		}
	})
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fmt.Errorf("%w; see '%s --help'", err, cmd.CommandPath())
	})
}
