package options

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	cliflag "k8s.io/component-base/cli/flag"
)

// Chapter is the annotation of a command that names its chapter, as a path in the repository.
const Chapter = "chapter"

// helpWidth does not depend on the terminal, so that the help text can be compared with a file.
const helpWidth = 100

// AddSections gives cmd the flags of all sections, and a help text that lists them by section. The
// text ends with cmd.Example and the chapter, so that both are still on the screen.
func AddSections(cmd *cobra.Command, sections *cliflag.NamedFlagSets) {
	for _, name := range sections.Order {
		cmd.Flags().AddFlagSet(sections.FlagSets[name])
	}
	cmd.SetHelpFunc(func(cmd *cobra.Command, _ []string) {
		var text bytes.Buffer
		fmt.Fprintf(&text, "%s\n\nUsage:\n  %s\n", cmd.Long, cmd.UseLine())
		cliflag.PrintSections(&text, *sections, helpWidth)
		printHelp(cmd, &text)
	})
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fmt.Errorf("%w; see '%s --help'", err, cmd.CommandPath())
	})
}

// AddCommands gives cmd its subcommands, and a help text that lists them and ends as that of
// [AddSections].
func AddCommands(cmd *cobra.Command, commands ...*cobra.Command) {
	cmd.AddCommand(commands...)
	cmd.SetHelpFunc(func(cmd *cobra.Command, _ []string) {
		var text bytes.Buffer
		fmt.Fprintf(&text, "%s\n\nUsage:\n  %s [command]\n\nCommands:\n", cmd.Long, cmd.CommandPath())
		for _, c := range cmd.Commands() {
			if c.IsAvailableCommand() {
				fmt.Fprintf(&text, "  %-13s %s\n", c.Name(), c.Short)
			}
		}
		fmt.Fprintf(&text, "\nFlags:\n%s", cmd.LocalFlags().FlagUsages())
		fmt.Fprintf(&text, "\nThe flags of a command: %s [command] --help\n", cmd.CommandPath())
		printHelp(cmd, &text)
	})
}

// printHelp prints text without the spaces at the ends of its lines, then the ending.
func printHelp(cmd *cobra.Command, text *bytes.Buffer) {
	if cmd.Example != "" {
		fmt.Fprintf(text, "\nExample:\n%s\n", cmd.Example)
	}
	if chapter := cmd.Annotations[Chapter]; chapter != "" {
		fmt.Fprintf(text, "\nChapter: %s\n", chapter)
	}
	for line := range strings.Lines(text.String()) {
		_, _ = io.WriteString(cmd.OutOrStdout(), strings.TrimRight(line, " \n")+"\n")
	}
}
