package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/utils/clock"
)

// version is set by the build; see the Makefile.
var version string

func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "devel"
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	root := &cobra.Command{
		Use:   "sakeeper",
		Short: "The ServiceAccount control plane of Kubernetes",
		Long: `sakeeper does what kube-controller-manager and kube-apiserver do for
ServiceAccounts, as software that runs on any cluster.`,
		Version:       buildVersion(),
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(newControllersCommand(runControllers), newWebhookCommand(runWebhook), newAgentCommand(runAgent), newSignerCommand(runSigner), newAuthenticatorCommand(runAuthenticator), newKeysCommand(clock.RealClock{}), newProbeCommand())
	return root.ExecuteContext(ctx)
}

// withSections gives cmd the flags, and a help text that lists them by section.
func withSections(cmd *cobra.Command, sections *cliflag.NamedFlagSets) {
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

// helpWidth is fixed, so that the help text is the same everywhere.
const helpWidth = 100
