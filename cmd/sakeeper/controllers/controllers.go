// Package controllers is the subcommand that runs the controllers, of which one replica is the leader.
package controllers

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"

	"github.com/sakeeper/sakeeper/cmd/sakeeper/options"
	"github.com/sakeeper/sakeeper/pkg/controllers"
	"github.com/sakeeper/sakeeper/pkg/kube"
)

// NewCommand makes the command, which calls start with the config that its flags result in.
func NewCommand(version string, start func(context.Context, *Config) error) *cobra.Command {
	opts := newOptions()
	cmd := &cobra.Command{
		Use:   "controllers",
		Short: "Run the controllers for ServiceAccounts, token Secrets and the root CA",
		Long: `Runs the controllers for ServiceAccounts, token Secrets and the root CA. Of
several replicas one works at a time, the one that holds the Lease.`,
		Example: `  # Beside an API server of your own, with the rights of manifests/overlays/outside.
  sakeeper controllers --kubeconfig=sakeeper.kubeconfig --leader-elect-resource-namespace=sakeeper-system \
    --service-account-private-key-file=/etc/kubernetes/pki/sa.key --root-ca-file=/etc/kubernetes/pki/ca.crt`,
		Annotations: map[string]string{options.Chapter: "cmd/sakeeper/controllers.md"},
		Args:        cobra.NoArgs,
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

// Config is made from the flags and the files that they name.
type Config struct {
	version  string
	options  *Options
	rest     *rest.Config
	registry *prometheus.Registry
	suite    *controllers.Suite
	// guard holds the requests of the suite back while the Lease is not valid.
	guard kube.LeaseGuard
	// election is set when the process is made; nil with --leader-elect=false.
	election *kube.Election
	// startElection is called before the election begins.
	startElection func()
}

// Registry has the metrics of the process.
func (c *Config) Registry() *prometheus.Registry { return c.registry }

// elect runs lead while this process holds the Lease.
func (c *Config) elect(ctx context.Context, lead func(context.Context) error) error {
	if c.election == nil {
		return lead(ctx)
	}
	c.startElection()
	return c.election.Run(ctx, lead)
}
