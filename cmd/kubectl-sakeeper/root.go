package main

import (
	"context"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/sakeeper/sakeeper/cmd/kubectl-sakeeper/inspect"
	"github.com/sakeeper/sakeeper/cmd/kubectl-sakeeper/keys"
	"github.com/sakeeper/sakeeper/cmd/kubectl-sakeeper/options"
	"github.com/sakeeper/sakeeper/cmd/kubectl-sakeeper/reach"
	"github.com/sakeeper/sakeeper/cmd/kubectl-sakeeper/report"
	"github.com/sakeeper/sakeeper/cmd/kubectl-sakeeper/tokens"
)

// version is set by the linker; see the Makefile.
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

func run(ctx context.Context, args []string, streams options.Streams) error {
	o := options.New(buildVersion(), streams)
	root := &cobra.Command{
		Use:   "kubectl-sakeeper",
		Short: "Which ServiceAccount tokens there are, and what could be done with each",
		Long: `Shows which ServiceAccount tokens a cluster holds in Secrets, which key signed
each, who uses it, and what could be done with it. It works on any cluster, with
or without sakeeper, with your rights; it writes nothing, and prints no token.`,
		Annotations:   map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl sakeeper"},
		Version:       o.Version,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetArgs(args)
	root.SetIn(streams.In)
	root.SetOut(streams.Out)
	root.SetErr(streams.ErrOut)
	o.AddFlags(root)
	root.AddCommand(
		tokens.NewCommand(o),
		reach.NewCommand(o),
		inspect.NewCommand(o),
		report.NewCommand(o),
		keys.NewCommand(o),
	)
	return root.ExecuteContext(ctx)
}
