// Package webhook is the subcommand that admits pods. Its work is that of
// [github.com/sakeeper/sakeeper/pkg/podadmission], [github.com/sakeeper/sakeeper/pkg/webhook] and
// [github.com/sakeeper/sakeeper/pkg/servingcert].
package webhook

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"

	"github.com/sakeeper/sakeeper/cmd/sakeeper/options"
	"github.com/sakeeper/sakeeper/pkg/cabundle"
)

// NewCommand makes the command, which calls start with the config that its flags result in.
func NewCommand(version string, start func(context.Context, *Config) error) *cobra.Command {
	opts := newOptions()
	cmd := &cobra.Command{
		Use:   "webhook",
		Short: "Run the admission webhook that gives pods their ServiceAccount, token and pull secrets",
		Long: `Runs the admission webhook that gives pods their ServiceAccount, token volume and
pull secrets, and limits the Secrets that they may name. It serves /mutate/pods
and /validate/pods over HTTPS. Several replicas may run; all of them work.`,
		Example: `  # On the machine of an API server that has --disable-admission-plugins=ServiceAccount.
  sakeeper webhook --kubeconfig=webhook.kubeconfig --bind-address=127.0.0.1 --certificate-hosts=127.0.0.1`,
		Annotations: map[string]string{options.Chapter: "cmd/sakeeper/webhook.md"},
		Args:        cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := opts.complete(version)
			if err != nil {
				return err
			}
			return start(cmd.Context(), cfg)
		},
	}
	options.AddSections(cmd, opts.sections())
	return cmd
}

// Config is made from the flags.
type Config struct {
	version string
	options *Options
	rest    *rest.Config
	// clientCA is nil if any client may ask for reviews.
	clientCA *cabundle.Loader
}

// certificates is the source of the serving certificate.
type certificates interface {
	GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error)
	// Ready returns nil if the certificate can be used, else the reason.
	Ready() error
	Run(ctx context.Context) error
}

func (o *Options) complete(version string) (*Config, error) {
	errs := o.validate()
	var err error
	cfg := &Config{version: version, options: o}
	cfg.rest, err = o.api.RESTConfig(component, version)
	errs = append(errs, err)
	if o.clientCAFile != "" {
		if cfg.clientCA, err = cabundle.OpenFile("client CA", o.clientCAFile); err != nil {
			errs = append(errs, fmt.Errorf("--client-ca-file: %w", err))
		}
	}
	return cfg, errors.Join(errs...)
}
