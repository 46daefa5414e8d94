package main

import (
	"context"
	"io"
	"runtime/debug"

	"github.com/spf13/cobra"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/cmd/sakeeper/agent"
	"github.com/sakeeper/sakeeper/cmd/sakeeper/authenticator"
	"github.com/sakeeper/sakeeper/cmd/sakeeper/controllers"
	"github.com/sakeeper/sakeeper/cmd/sakeeper/keys"
	"github.com/sakeeper/sakeeper/cmd/sakeeper/options"
	"github.com/sakeeper/sakeeper/cmd/sakeeper/policies"
	"github.com/sakeeper/sakeeper/cmd/sakeeper/probe"
	"github.com/sakeeper/sakeeper/cmd/sakeeper/signer"
	"github.com/sakeeper/sakeeper/cmd/sakeeper/webhook"
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

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	v := buildVersion()
	root := &cobra.Command{
		Use:   "sakeeper",
		Short: "The ServiceAccount control plane of Kubernetes",
		Long: `sakeeper does what kube-controller-manager and kube-apiserver do for
ServiceAccounts, as software that runs on any cluster.`,
		Example: `  # The tokens that a label asks for, with the credentials of a kubeconfig.
  sakeeper controllers --kubeconfig=sakeeper.kubeconfig --controllers=token-request-controller`,
		Annotations:   map[string]string{options.Chapter: "README.md"},
		Version:       v,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.CompletionOptions.HiddenDefaultCmd = true
	options.AddCommands(root,
		controllers.NewCommand(v, controllers.Run),
		webhook.NewCommand(v, webhook.Run),
		agent.NewCommand(v, agent.Run),
		signer.NewCommand(v, signer.Run),
		authenticator.NewCommand(v, authenticator.Run),
		keys.NewCommand(v, clock.RealClock{}),
		policies.NewCommand(),
		probe.NewCommand(),
	)
	return root.ExecuteContext(ctx)
}
