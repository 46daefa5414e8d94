package controllers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/rest"
	cliflag "k8s.io/component-base/cli/flag"

	"github.com/sakeeper/sakeeper/cmd/sakeeper/options"
	"github.com/sakeeper/sakeeper/cmd/sakeeper/process"
	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/cabundle"
	"github.com/sakeeper/sakeeper/pkg/controllers"
	"github.com/sakeeper/sakeeper/pkg/controllers/pullsecretcopy"
	"github.com/sakeeper/sakeeper/pkg/controllers/rootca"
	"github.com/sakeeper/sakeeper/pkg/controllers/serviceaccount"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokengeneration"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokenrequest"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokensecret"
)

// Options are the flags of sakeeper controllers.
type Options struct {
	api      *options.API
	election *options.Election
	servers  *options.Servers
	logs     *options.Logs

	// suite has the settings of the controllers, with their defaults.
	suite                  controllers.Options
	tokenRequestNamespaces string
	keys                   options.Keys
	endpoint               string
	rootCAFile             string
}

func newOptions() *Options {
	return &Options{
		api:                    options.NewAPI(),
		election:               options.NewElection(api.ControllersLease),
		servers:                options.NewServers(),
		logs:                   options.NewLogs(),
		suite:                  controllers.Defaults(),
		tokenRequestNamespaces: namespacesLabelled,
	}
}

func (o *Options) sections() *cliflag.NamedFlagSets {
	sections := &cliflag.NamedFlagSets{}
	o.addFlags(sections.FlagSet("controllers"))
	o.api.AddFlags(sections.FlagSet("API server"))
	o.election.AddFlags(sections.FlagSet("leader election"))
	sections.FlagSet("leader election").BoolVar(&o.suite.WarmStandby, "warm-standby", true,
		"Keep objects cached while another replica leads, so that this one works at once when it takes over. A standby then needs as much memory as the leader.")
	o.servers.AddFlags(sections.FlagSet("metrics and probes"))
	o.logs.AddFlags(sections.FlagSet("logs"))
	return sections
}

func (o *Options) addFlags(fs *pflag.FlagSet) {
	fs.StringSliceVar(&o.suite.Controllers, "controllers", o.suite.Controllers,
		"Controllers to run: '*' is all but those that are off by default, 'name' turns one on, '-name' turns one off; the first entry that fits a controller decides.\nControllers: "+
			strings.Join(controllers.Names(), ", ")+".\nOff by default: "+strings.Join(controllers.OffByDefault(), ", ")+".")
	fs.StringSliceVar(&o.suite.ServiceAccount.Names, "service-accounts", o.suite.ServiceAccount.Names,
		"ServiceAccounts that every active namespace gets.")
	fs.IntVar(&o.suite.TokenSecret.Workers, "concurrent-serviceaccount-token-syncs", o.suite.TokenSecret.Workers,
		"Token Secrets that are handled at a time.")
	o.keys.AddFlags(fs)
	fs.StringVar(&o.endpoint, "service-account-signing-endpoint", o.endpoint,
		"Unix socket on which 'sakeeper signer' signs legacy tokens (its --legacy-socket); takes the place of all flags for keys.")
	fs.BoolVar(&o.suite.SigningKeyUnverified, "signing-key-unverified", o.suite.SigningKeyUnverified,
		"Write tokens even if the signing key is not among the keys that the API server publishes, for keys that it accepts all the same.")
	fs.StringVar((*string)(&o.suite.TokenSecret.Resign), "resign-tokens", string(o.suite.TokenSecret.Resign),
		"Which tokens in Secrets are replaced by new ones, which revokes every copy of the old: 'never' none; 'dead' those that no known key verifies, or that name a former ServiceAccount, and that the API server has refused three times over 10 minutes; 'all' also those of keys that only verify. The annotation sakeeper.io/resign=never keeps one.")
	fs.Float64Var(&o.suite.TokenSecret.ResignQPS, "resign-qps", o.suite.TokenSecret.ResignQPS,
		"Tokens that are replaced in a second.")
	fs.DurationVar(&o.suite.TokenCleaner.Period, "legacy-service-account-token-clean-up-period", o.suite.TokenCleaner.Period,
		"How long a token in a Secret to which its ServiceAccount refers must be unused before it is marked invalid, and then marked before its Secret is deleted. Uses are noted by the day.")
	fs.DurationVar(&o.suite.TokenCleaner.Interval, "legacy-service-account-token-clean-up-interval", o.suite.TokenCleaner.Interval,
		"Time between two searches for unused tokens. The first is at the start.")
	fs.BoolVar(&o.suite.TokenCleaner.DryRun, "legacy-service-account-token-clean-up-dry-run", o.suite.TokenCleaner.DryRun,
		"Report by log, event and metric which tokens would be marked or deleted for lack of use, and leave them.")
	fs.StringVar((*string)(&o.suite.TokenGeneration.Mode), "auto-generate-token-secrets", string(o.suite.TokenGeneration.Mode),
		"Which ServiceAccounts get a token Secret with a token that does not expire, as before Kubernetes 1.24: 'none'; 'labelled' those that have the label sakeeper.io/auto-token=true, or whose namespace has it; 'all'.")
	o.addTokenRequestFlags(fs)
	o.addPullSecretFlags(fs)
	fs.DurationVar(&o.suite.TokenInventory.Interval, "inventory-interval", o.suite.TokenInventory.Interval,
		"Time between two counts of the tokens in Secrets by what could be done with each, in the metric sakeeper_long_lived_tokens; 0: none. Each reads all token Secrets, ServiceAccounts, pods and RBAC objects in chunks of 500, and keeps up to 3 KiB of memory per token, account, pod and binding while it counts.")
	fs.StringVar(&o.rootCAFile, "root-ca-file", o.rootCAFile,
		"PEM file with the certificates that verify the API server; it goes into every kube-root-ca.crt and token Secret. It is read again when it changes. For the token-request-controller alone, the CA of the connection to the API server will do.")
	fs.BoolVar(&o.suite.RootCAUnverified, "root-ca-unverified", o.suite.RootCAUnverified,
		"Publish a root CA even if it does not verify the API server, which the published one does.")
}

func (o *Options) validate() []error {
	errs := slices.Concat(o.api.Validate(), o.election.Validate(), o.servers.Validate(), o.logs.Validate())
	enabled, err := o.enabled()
	switch {
	case err != nil:
		errs = append(errs, err)
	case len(enabled) == 0:
		errs = append(errs, fmt.Errorf("--controllers: %q turns no controller on", strings.Join(o.suite.Controllers, ",")))
	}
	if enabled[serviceaccount.Name] && len(o.suite.ServiceAccount.Names) == 0 {
		errs = append(errs, fmt.Errorf("--service-accounts: empty; to make none, use --controllers=*,-%s", serviceaccount.Name))
	}
	for _, name := range o.suite.ServiceAccount.Names {
		for _, problem := range validation.IsDNS1123Subdomain(name) {
			errs = append(errs, fmt.Errorf("--service-accounts: %q: %s", name, problem))
		}
	}
	if o.suite.TokenSecret.Workers < 1 {
		errs = append(errs, fmt.Errorf("--concurrent-serviceaccount-token-syncs: %d is less than 1", o.suite.TokenSecret.Workers))
	}
	errs = append(errs, o.validateTokens()...)
	errs = append(errs, o.validateTokenRequests(enabled[tokenrequest.Name])...)
	errs = append(errs, o.validatePullSecrets(enabled[pullsecretcopy.Name])...)
	errs = append(errs, o.validateKeys(enabled)...)
	if o.suite.NeedsRootCA() && o.rootCAFile == "" {
		errs = append(errs, fmt.Errorf("--root-ca-file is required by the %s and the %s; to go without both, use --controllers=*,-%s,-%s",
			rootca.Name, tokensecret.Name, rootca.Name, tokensecret.Name))
	}
	return errs
}

func (o *Options) validateKeys(enabled map[string]bool) []error {
	errs := o.keys.Validate()
	if o.endpoint != "" && (o.keys.HasSigningKey() || len(o.keys.Files.KeyFiles) > 0) {
		errs = append(errs, fmt.Errorf("--service-account-signing-endpoint excludes %s, --service-account-key-file and %s: the signer has the keys", options.PrivateKeyFlag, options.KeyDirFlag))
	}
	if !o.suite.NeedsKeys() || o.keys.HasSigningKey() || o.endpoint != "" {
		return errs
	}
	without := "--controllers=*,-" + tokensecret.Name
	if enabled[tokengeneration.Name] {
		without += " and --auto-generate-token-secrets=" + string(tokengeneration.ModeNone)
	}
	return append(errs, fmt.Errorf("%s, %s or --service-account-signing-endpoint is required by the %s; to go without tokens, use %s",
		options.PrivateKeyFlag, options.KeyDirFlag, tokensecret.Name, without))
}

// validateTokens checks the flags for tokens that exist.
func (o *Options) validateTokens() []error {
	var errs []error
	switch o.suite.TokenSecret.Resign {
	case tokensecret.ResignNever, tokensecret.ResignDead, tokensecret.ResignAll:
	default:
		errs = append(errs, fmt.Errorf("--resign-tokens: %q is not one of never, dead, all", o.suite.TokenSecret.Resign))
	}
	if qps := o.suite.TokenSecret.ResignQPS; qps <= 0 {
		errs = append(errs, fmt.Errorf("--resign-qps: %v is not positive", qps))
	}
	if period := o.suite.TokenCleaner.Period; period <= 0 {
		errs = append(errs, fmt.Errorf("--legacy-service-account-token-clean-up-period: %v is not positive", period))
	}
	if interval := o.suite.TokenCleaner.Interval; interval <= 0 {
		errs = append(errs, fmt.Errorf("--legacy-service-account-token-clean-up-interval: %v is not positive", interval))
	}
	if interval := o.suite.TokenInventory.Interval; interval < 0 {
		errs = append(errs, fmt.Errorf("--inventory-interval: %v is negative", interval))
	}
	switch o.suite.TokenGeneration.Mode {
	case tokengeneration.ModeNone, tokengeneration.ModeLabelled, tokengeneration.ModeAll:
	default:
		errs = append(errs, fmt.Errorf("--auto-generate-token-secrets: %q is not one of none, labelled, all", o.suite.TokenGeneration.Mode))
	}
	return errs
}

// enabled returns the controllers that the flags turn on.
func (o *Options) enabled() (map[string]bool, error) {
	if len(o.suite.Controllers) == 0 {
		return map[string]bool{}, nil // to the library, this is the default
	}
	enabled, err := o.suite.Enabled()
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var errs []error
		for _, err := range joined.Unwrap() {
			errs = append(errs, fmt.Errorf("--controllers: %w", err))
		}
		err = errors.Join(errs...)
	}
	return enabled, err
}

// complete validates the flags, and reads the files that the enabled controllers need. Its error
// joins all problems.
func (o *Options) complete(ctx context.Context, version string) (*Config, error) {
	errs := o.validate()
	cfg := &Config{version: version, options: o, registry: process.NewRegistry(version)}
	var err error
	cfg.rest, err = o.api.RESTConfig(component, version)
	errs = append(errs, err)
	if errors.Join(errs...) == nil {
		cfg.suite, err = o.newSuite(cfg)
		errs = append(errs, err)
	}
	if cfg.suite == nil {
		return nil, errors.Join(append(errs, o.checkFiles())...)
	}
	return cfg, cfg.suite.Load(ctx)
}

// checkFiles returns what is wrong with files, to be reported together with what is wrong with
// flags.
func (o *Options) checkFiles() error {
	var errs []error
	if o.suite.NeedsKeys() && o.keys.HasSigningKey() {
		_, err := o.keys.Load()
		errs = append(errs, err)
	}
	if o.suite.NeedsRootCA() && o.rootCAFile != "" {
		_, err := cabundle.Load(o.rootCAFile)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// newSuite makes the suite of a config whose flags are valid.
func (o *Options) newSuite(cfg *Config) (*controllers.Suite, error) {
	suite := o.suite
	suite.Config = rest.CopyConfig(cfg.rest)
	suite.Config.Wrap(cfg.guard.Wrap)
	suite.Registerer, suite.Process, suite.Elect = cfg.registry, o.election.Reference(), cfg.elect
	suite.TokenRequest.AllNamespaces = o.tokenRequestNamespaces == namespacesAll
	switch {
	case o.keys.Dir != "":
		suite.Keys = controllers.KeyDirectory(o.keys.Dir)
	case o.keys.HasSigningKey():
		suite.Keys = controllers.KeyFiles(o.keys.Files)
	case o.endpoint != "":
		suite.Keys = controllers.Signer(o.endpoint)
	}
	if o.rootCAFile != "" {
		suite.RootCA = controllers.CAFile(o.rootCAFile)
	} else if enabled, _ := o.enabled(); enabled[tokenrequest.Name] {
		ca, err := connectionCA(cfg.rest, o.api.Kubeconfig)
		if err != nil {
			return nil, err
		}
		suite.RootCA = controllers.CAFrom(ca)
	}
	return controllers.New(suite)
}
