// Package controllers is the subcommand that runs the controllers, of which one replica is the leader.
package controllers

import (
	"context"

	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"

	"github.com/sakeeper/sakeeper/cmd/sakeeper/options"
	"github.com/sakeeper/sakeeper/pkg/cabundle"
	"github.com/sakeeper/sakeeper/pkg/controllers/rootca"
	"github.com/sakeeper/sakeeper/pkg/controllers/serviceaccount"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokencleaner"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokengeneration"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokenrequest"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokensecret"
	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/signingkey"
)

// NewCommand makes the command, which calls start with the config that its flags result in.
func NewCommand(version string, start func(context.Context, *Config) error) *cobra.Command {
	opts := newOptions()
	cmd := &cobra.Command{
		Use:   "controllers",
		Short: "Run the controllers for ServiceAccounts, token Secrets and the root CA",
		Long: `Runs the controllers for ServiceAccounts, token Secrets and the root CA. Of
several replicas one works at a time, the one that holds the Lease.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := opts.complete(cmd.Context(), version)
			if err != nil {
				return err
			}
			return start(cmd.Context(), cfg)
		},
	}
	options.AddSections(cmd, opts.sections())
	return cmd
}

// Config is what the flags and the files that they name amount to.
type Config struct {
	version string
	options *Options
	enabled map[string]bool
	rest    *rest.Config
	keys    keySource         // nil while no controller makes tokens
	signs   signingkey.Signer // nil where keys can sign
	ca      *cabundle.Loader  // nil while nobody needs it
}

// keySource is where the keys of the moment come from: files, or a signer.
type keySource interface {
	Get() *keys.Set
	OnChange(f func())
	OnError(f func(error))
	Run(ctx context.Context) error
}

// controller is what all controllers have in common.
type controller interface {
	Run(ctx context.Context) error
	Ready() bool
}

// descriptor is one controller: its name, the name that kube-controller-manager
// gave it before, and how it is made.
type descriptor struct {
	name, alias string
	make        func(*assembly) (controller, error)
	// byName: '*' does not turn it on, because it needs rights that the others do not.
	byName bool
}

func descriptors() []descriptor {
	return []descriptor{
		{name: serviceaccount.Name, alias: "serviceaccount", make: (*assembly).serviceAccount},
		{name: tokensecret.Name, alias: "serviceaccount-token", make: (*assembly).tokenSecret},
		{name: rootca.Name, alias: "root-ca-cert-publisher", make: (*assembly).rootCA},
		{name: tokencleaner.Name, alias: "legacy-service-account-token-cleaner", make: (*assembly).tokenCleaner},
		{name: tokengeneration.Name, alias: "token-generation", make: (*assembly).tokenGeneration},
		{name: tokenrequest.Name, alias: "token-request", make: (*assembly).tokenRequest, byName: true},
	}
}
