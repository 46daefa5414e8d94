package main

import (
	"context"
	"crypto/tls"
	"errors"

	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"

	"github.com/sakeeper/sakeeper/pkg/kube"
)

func newWebhookCommand(start func(context.Context, *webhookConfig) error) *cobra.Command {
	opts := newWebhookOptions()
	cmd := &cobra.Command{
		Use:   "webhook",
		Short: "Run the admission webhook that gives pods their ServiceAccount, token and pull secrets",
		Long: `Runs the admission webhook that gives pods their ServiceAccount, token volume and
pull secrets, and limits the Secrets that they may name. It serves /mutate/pods
and /validate/pods over HTTPS. Several replicas may run; all of them work.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := opts.complete()
			if err != nil {
				return err
			}
			return start(cmd.Context(), cfg)
		},
	}
	withSections(cmd, opts.sections())
	return cmd
}

// webhookConfig is what the flags and the files that they name amount to.
type webhookConfig struct {
	options *webhookOptions
	rest    *rest.Config
}

// certificates is where the serving certificate comes from.
type certificates interface {
	GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error)
	// Ready returns nil while the certificate will do, and else the reason.
	Ready() error
	Run(ctx context.Context) error
}

func (o *webhookOptions) complete() (*webhookConfig, error) {
	errs := o.validate()
	var err error
	cfg := &webhookConfig{options: o}
	cfg.rest, err = kube.Connection{
		Kubeconfig: o.api.kubeconfig, QPS: o.api.qps, Burst: o.api.burst, UserAgent: webhookComponent + "/" + buildVersion(),
	}.Config()
	return cfg, errors.Join(append(errs, err)...)
}
