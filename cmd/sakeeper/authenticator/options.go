package authenticator

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/client-go/rest"
	cliflag "k8s.io/component-base/cli/flag"

	"github.com/sakeeper/sakeeper/cmd/sakeeper/options"
	"github.com/sakeeper/sakeeper/pkg/cabundle"
	"github.com/sakeeper/sakeeper/pkg/issuer"
	"github.com/sakeeper/sakeeper/pkg/keys"
)

const component = "sakeeper-authenticator"

// NewCommand makes the command, which calls start with the config that its flags result in.
func NewCommand(version string, start func(context.Context, *Config) error) *cobra.Command {
	opts := newOptions()
	cmd := &cobra.Command{
		Use:   "authenticator",
		Short: "Run the webhook that says whose a ServiceAccount token is, and OIDC discovery",
		Long: `Runs the TokenReview webhook that says whose a ServiceAccount token is, as
kube-apiserver does (/authenticate), and serves OIDC discovery for the issuer
(/.well-known/openid-configuration and /openid/v1/jwks). It holds public keys
only. Several replicas may run; all of them work.`,
		Example: `  sakeeper authenticator --kubeconfig=authenticator.kubeconfig --key-dir=/etc/sakeeper/public-keys \
    --service-account-issuer=https://kubernetes.default.svc.cluster.local \
    --tls-cert-file=tls.crt --tls-private-key-file=tls.key --client-ca-file=clients.crt`,
		Annotations: map[string]string{options.Chapter: "cmd/sakeeper/authenticator.md"},
		Args:        cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := opts.complete(version)
			if err != nil {
				return err
			}
			if opts.export != "" {
				return cfg.discovery.Export(opts.export)
			}
			return start(cmd.Context(), cfg)
		},
	}
	options.AddSections(cmd, opts.sections())
	return cmd
}

// Options are the flags of sakeeper authenticator.
type Options struct {
	api     *options.API
	servers *options.Servers
	logs    *options.Logs

	bindAddress       string
	port              int
	certFile, keyFile string
	clientCAFile      string

	keys      options.Keys
	issuers   []string
	jwksURI   string
	audiences []string
	maxAge    time.Duration
	export    string

	track       bool
	foreignFile string
}

func newOptions() *Options {
	return &Options{
		api: options.NewAPI(), servers: options.NewServers(), logs: options.NewLogs(),
		bindAddress: "0.0.0.0", port: 8443, maxAge: time.Hour,
	}
}

func (o *Options) sections() *cliflag.NamedFlagSets {
	sections := &cliflag.NamedFlagSets{}
	o.addFlags(sections.FlagSet("authenticator"))
	o.addServingFlags(sections.FlagSet("serving"))
	o.api.AddFlags(sections.FlagSet("API server"))
	o.servers.AddFlags(sections.FlagSet("metrics and probes"))
	o.logs.AddFlags(sections.FlagSet("logs"))
	return sections
}

func (o *Options) addFlags(fs *pflag.FlagSet) {
	o.keys.AddVerificationFlags(fs)
	fs.StringArrayVar(&o.issuers, "service-account-issuer", o.issuers,
		"Issuer of bound tokens, a URL, as the API server has it. May be repeated: tokens of all are accepted, and discovery is that of the first.")
	fs.StringVar(&o.jwksURI, "service-account-jwks-uri", o.jwksURI,
		"URL of the JWKS that discovery shows. Empty: /openid/v1/jwks below the issuer.")
	fs.StringSliceVar(&o.audiences, "api-audiences", o.audiences,
		"Audiences that are meant where a review names none, and by tokens without any. Empty: the issuers.")
	fs.DurationVar(&o.maxAge, "discovery-max-age", o.maxAge,
		"How long others may keep a copy of the discovery documents, in whole seconds. A key must be published at least that long before it signs.")
	fs.StringVar(&o.export, "export-discovery", o.export,
		"Directory to which both discovery documents are written, at their paths, for a bucket or a web server; then the command ends.")
	fs.BoolVar(&o.track, "track-legacy-tokens", o.track,
		"Note the day of the last use on the Secrets of legacy tokens, as kube-apiserver does. It takes the right to patch Secrets.")
	fs.StringVar(&o.foreignFile, "foreign-issuers-file", o.foreignFile,
		"YAML file with the issuers of other clusters whose tokens are accepted. It is read at the start.")
}

func (o *Options) addServingFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.bindAddress, "bind-address", o.bindAddress, "IP address to serve on.")
	fs.IntVar(&o.port, "secure-port", o.port, "Port to serve on, with HTTPS.")
	fs.StringVar(&o.certFile, "tls-cert-file", o.certFile, "PEM file with the serving certificate and its intermediates. It is read again when it changes.")
	fs.StringVar(&o.keyFile, "tls-private-key-file", o.keyFile, "PEM file with the key of --tls-cert-file. It is read again when it changes.")
	fs.StringVar(&o.clientCAFile, "client-ca-file", o.clientCAFile,
		"PEM file with CAs. Clients of /authenticate need a client certificate that one of them has signed. Empty: /authenticate is off. It is read again when it changes.")
}

func (o *Options) validate() []error {
	errs := slices.Concat(o.api.Validate(), o.servers.Validate(), o.logs.Validate(), o.keys.ValidateVerification())
	if len(o.issuers) == 0 {
		errs = append(errs, errors.New("--service-account-issuer is required"))
	}
	if o.maxAge < 0 || o.maxAge%time.Second != 0 {
		errs = append(errs, fmt.Errorf("--discovery-max-age: %v is not a whole number of seconds", o.maxAge))
	}
	if o.export != "" {
		return errs
	}
	return append(errs, o.validateServing()...)
}

func (o *Options) validateServing() []error {
	var errs []error
	if o.certFile == "" || o.keyFile == "" {
		errs = append(errs, errors.New("--tls-cert-file and --tls-private-key-file are required"))
	}
	if net.ParseIP(o.bindAddress) == nil {
		errs = append(errs, fmt.Errorf("--bind-address: %q is not an IP address", o.bindAddress))
	}
	if o.port < 1 || o.port > 65535 {
		errs = append(errs, fmt.Errorf("--secure-port: %d is not between 1 and 65535", o.port))
	}
	if o.clientCAFile == "" && (o.track || o.foreignFile != "") {
		errs = append(errs, errors.New("--track-legacy-tokens and --foreign-issuers-file need --client-ca-file: without it /authenticate is off"))
	}
	return errs
}

// Config is made from the flags and the files that they name.
type Config struct {
	version   string
	options   *Options
	rest      *rest.Config     // nil if /authenticate is off
	clientCA  *cabundle.Loader // nil if /authenticate is off
	keys      *keys.Loader
	discovery issuer.Discovery
	foreign   []foreignIssuer
}

func (o *Options) complete(version string) (*Config, error) {
	errs := o.validate()
	cfg := &Config{version: version, options: o}
	var err error
	if o.keys.HasKeys() {
		cfg.keys, err = o.keys.LoadVerification()
		errs = append(errs, err)
	}
	if len(o.issuers) > 0 {
		cfg.discovery = issuer.Discovery{Issuer: o.issuers[0], JWKSURI: o.jwksURI, MaxAge: o.maxAge, Keys: func() *keys.Set { return cfg.keys.Get() }}
		if o.jwksURI == "" {
			cfg.discovery.JWKSURI = o.issuers[0] + issuer.JWKSPath
		}
		if err := cfg.discovery.Check(); err != nil {
			errs = append(errs, fmt.Errorf("--service-account-issuer, --service-account-jwks-uri: %w", err))
		}
	}
	if o.export == "" && o.clientCAFile != "" {
		cfg.rest, err = o.api.RESTConfig(component, version)
		errs = append(errs, err)
		if cfg.clientCA, err = cabundle.OpenFile("client CA", o.clientCAFile); err != nil {
			errs = append(errs, fmt.Errorf("--client-ca-file: %w", err))
		}
	}
	if o.foreignFile != "" {
		cfg.foreign, err = readForeignIssuers(o.foreignFile, o.issuers, version)
		errs = append(errs, err)
	}
	return cfg, errors.Join(errs...)
}
