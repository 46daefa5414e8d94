package controllers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation"
	cliflag "k8s.io/component-base/cli/flag"

	"github.com/sakeeper/sakeeper/cmd/sakeeper/options"
	"github.com/sakeeper/sakeeper/pkg/cabundle"
	"github.com/sakeeper/sakeeper/pkg/controllers/rootca"
	"github.com/sakeeper/sakeeper/pkg/controllers/serviceaccount"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokengeneration"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokenrequest"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokensecret"
	"github.com/sakeeper/sakeeper/pkg/signer"
)

// Options are the flags of sakeeper controllers.
type Options struct {
	api      *options.API
	election *options.Election
	servers  *options.Servers
	logs     *options.Logs

	controllers     []string
	serviceAccounts []string
	tokenSyncs      int
	resign          string
	resignQPS       float64
	cleanUpPeriod   time.Duration
	cleanUpInterval time.Duration
	cleanUpDryRun   bool
	generate        string
	tokenRequests   *tokenRequestOptions
	keys            options.Keys
	endpoint        string
	rootCAFile      string
}

func newOptions() *Options {
	return &Options{
		api:             options.NewAPI(),
		election:        options.NewElection("sakeeper-controllers"),
		servers:         options.NewServers(),
		logs:            options.NewLogs(),
		controllers:     []string{"*"},
		serviceAccounts: []string{"default"},
		tokenSyncs:      10,
		resign:          string(tokensecret.ResignDead),
		resignQPS:       10,
		cleanUpPeriod:   8760 * time.Hour,
		cleanUpInterval: 24 * time.Hour,
		generate:        string(tokengeneration.ModeNone),
		tokenRequests:   newTokenRequestOptions(),
	}
}

func (o *Options) sections() *cliflag.NamedFlagSets {
	sections := &cliflag.NamedFlagSets{}
	o.addFlags(sections.FlagSet("controllers"))
	o.api.AddFlags(sections.FlagSet("API server"))
	o.election.AddFlags(sections.FlagSet("leader election"))
	o.servers.AddFlags(sections.FlagSet("metrics and probes"))
	o.logs.AddFlags(sections.FlagSet("logs"))
	return sections
}

func (o *Options) addFlags(fs *pflag.FlagSet) {
	fs.StringSliceVar(&o.controllers, "controllers", o.controllers,
		"Controllers to run: '*' is all but those that are off by default, 'name' turns one on, '-name' turns one off; the first entry that fits a controller decides.\nControllers: "+
			strings.Join(controllerNames(), ", ")+".\nOff by default: "+strings.Join(offByDefault(), ", ")+".")
	fs.StringSliceVar(&o.serviceAccounts, "service-accounts", o.serviceAccounts,
		"ServiceAccounts that every active namespace gets.")
	fs.IntVar(&o.tokenSyncs, "concurrent-serviceaccount-token-syncs", o.tokenSyncs,
		"Token Secrets that are handled at a time.")
	o.keys.AddFlags(fs)
	fs.StringVar(&o.endpoint, "service-account-signing-endpoint", o.endpoint,
		"Unix socket on which 'sakeeper signer' signs legacy tokens (its --legacy-socket); takes the place of all flags for keys.")
	fs.StringVar(&o.resign, "resign-tokens", o.resign,
		"Which tokens in Secrets are replaced by new ones, which revokes every copy of the old: 'never' none; 'dead' those that no known key verifies, or that name a former ServiceAccount, and that the API server has refused three times over 10 minutes; 'all' also those of keys that only verify. The annotation sakeeper.io/resign=never keeps one.")
	fs.Float64Var(&o.resignQPS, "resign-qps", o.resignQPS,
		"Tokens that are replaced in a second.")
	fs.DurationVar(&o.cleanUpPeriod, "legacy-service-account-token-clean-up-period", o.cleanUpPeriod,
		"How long a token in a Secret to which its ServiceAccount refers must be unused before it is marked invalid, and then marked before its Secret is deleted. Uses are noted by the day.")
	fs.DurationVar(&o.cleanUpInterval, "legacy-service-account-token-clean-up-interval", o.cleanUpInterval,
		"Time between two searches for unused tokens. The first is at the start.")
	fs.BoolVar(&o.cleanUpDryRun, "legacy-service-account-token-clean-up-dry-run", o.cleanUpDryRun,
		"Report by log, event and metric which tokens would be marked or deleted for lack of use, and leave them.")
	fs.StringVar(&o.generate, "auto-generate-token-secrets", o.generate,
		"Which ServiceAccounts get a token Secret with a token that does not expire, as before Kubernetes 1.24: 'none'; 'labelled' those that have the label sakeeper.io/auto-token=true, or whose namespace has it; 'all'.")
	o.tokenRequests.addFlags(fs)
	fs.StringVar(&o.rootCAFile, "root-ca-file", o.rootCAFile,
		"PEM file with the certificates that verify the API server; it goes into every kube-root-ca.crt and token Secret. It is read again when it changes. For the token-request-controller alone, the CA of the connection to the API server will do.")
}

func (o *Options) validate() []error {
	errs := slices.Concat(o.api.Validate(), o.election.Validate(), o.servers.Validate(), o.logs.Validate())
	enabled, err := o.enabled()
	switch {
	case err != nil:
		errs = append(errs, err)
	case len(enabled) == 0:
		errs = append(errs, fmt.Errorf("--controllers: %q turns no controller on", strings.Join(o.controllers, ",")))
	}
	if enabled[serviceaccount.Name] && len(o.serviceAccounts) == 0 {
		errs = append(errs, fmt.Errorf("--service-accounts: empty; to make none, use --controllers=*,-%s", serviceaccount.Name))
	}
	for _, name := range o.serviceAccounts {
		for _, problem := range validation.IsDNS1123Subdomain(name) {
			errs = append(errs, fmt.Errorf("--service-accounts: %q: %s", name, problem))
		}
	}
	if o.tokenSyncs < 1 {
		errs = append(errs, fmt.Errorf("--concurrent-serviceaccount-token-syncs: %d is less than 1", o.tokenSyncs))
	}
	errs = append(errs, o.validateTokens()...)
	errs = append(errs, o.tokenRequests.validate(enabled[tokenrequest.Name])...)
	errs = append(errs, o.validateKeys(enabled)...)
	if o.needsCA(enabled) && o.rootCAFile == "" {
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
	if !o.needsKeys(enabled) || o.keys.HasSigningKey() || o.endpoint != "" {
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
	switch tokensecret.Resign(o.resign) {
	case tokensecret.ResignNever, tokensecret.ResignDead, tokensecret.ResignAll:
	default:
		errs = append(errs, fmt.Errorf("--resign-tokens: %q is not one of never, dead, all", o.resign))
	}
	if o.resignQPS <= 0 {
		errs = append(errs, fmt.Errorf("--resign-qps: %v is not positive", o.resignQPS))
	}
	if o.cleanUpPeriod <= 0 {
		errs = append(errs, fmt.Errorf("--legacy-service-account-token-clean-up-period: %v is not positive", o.cleanUpPeriod))
	}
	if o.cleanUpInterval <= 0 {
		errs = append(errs, fmt.Errorf("--legacy-service-account-token-clean-up-interval: %v is not positive", o.cleanUpInterval))
	}
	switch tokengeneration.Mode(o.generate) {
	case tokengeneration.ModeNone, tokengeneration.ModeLabelled, tokengeneration.ModeAll:
	default:
		errs = append(errs, fmt.Errorf("--auto-generate-token-secrets: %q is not one of none, labelled, all", o.generate))
	}
	return errs
}

// enabled is what is on by --controllers, less the generation of tokens while no
// account is to get one.
func (o *Options) enabled() (map[string]bool, error) {
	enabled, err := enabledControllers(o.controllers)
	if tokengeneration.Mode(o.generate) == tokengeneration.ModeNone {
		delete(enabled, tokengeneration.Name)
	}
	return enabled, err
}

func (o *Options) needsKeys(enabled map[string]bool) bool {
	return enabled[tokensecret.Name] || enabled[tokengeneration.Name]
}

func (o *Options) needsCA(enabled map[string]bool) bool {
	return enabled[rootca.Name] || o.needsKeys(enabled)
}

// complete validates the flags, and reads the files that the enabled controllers
// need. Its error joins all problems.
func (o *Options) complete(ctx context.Context, version string) (*Config, error) {
	errs := o.validate()
	enabled, _ := o.enabled() // validate has reported the error
	var err error
	cfg := &Config{version: version, options: o, enabled: enabled}
	cfg.rest, err = o.api.RESTConfig(component, version)
	errs = append(errs, err)
	if o.needsKeys(enabled) && o.keys.HasSigningKey() {
		files, err := o.keys.Load()
		if err == nil {
			cfg.keys = files
		}
		errs = append(errs, err)
	}
	if o.needsKeys(enabled) && o.endpoint != "" && !o.keys.HasSigningKey() {
		client, err := signer.Dial(ctx, o.endpoint)
		if err == nil {
			cfg.keys, cfg.signs = client, client
		} else {
			err = fmt.Errorf("--service-account-signing-endpoint: %w", err)
		}
		errs = append(errs, err)
	}
	if (o.needsCA(enabled) || enabled[tokenrequest.Name]) && o.rootCAFile != "" {
		cfg.ca, err = cabundle.Open(o.rootCAFile)
		errs = append(errs, err)
	}
	if enabled[tokenrequest.Name] && cfg.rest != nil && !o.needsCA(enabled) && o.rootCAFile == "" {
		cfg.ca, err = connectionCA(cfg.rest, o.api.Kubeconfig)
		errs = append(errs, err)
	}
	return cfg, errors.Join(errs...)
}

func controllerNames() []string {
	var names []string
	for _, d := range descriptors() {
		names = append(names, d.name)
	}
	return names
}

func offByDefault() []string {
	var names []string
	for _, d := range descriptors() {
		if d.byName {
			names = append(names, d.name)
		}
	}
	return names
}

// enabledControllers reads --controllers as kube-controller-manager does: the
// first entry that names a controller decides, and '*' stands for the rest.
func enabledControllers(list []string) (map[string]bool, error) {
	canonical := map[string]string{"*": "*"}
	for _, d := range descriptors() {
		canonical[d.name], canonical[d.alias] = d.name, d.name
	}
	var errs []error
	choice := map[string]bool{}
	for _, entry := range list {
		name, off := strings.CutPrefix(entry, "-")
		known, ok := canonical[name]
		if !ok || (known == "*" && off) {
			errs = append(errs, fmt.Errorf("--controllers: %q is not a controller; there are %s", entry, strings.Join(controllerNames(), ", ")))
			continue
		}
		if _, decided := choice[known]; !decided {
			choice[known] = !off
		}
	}
	enabled := map[string]bool{}
	for _, d := range descriptors() {
		if on, explicit := choice[d.name]; on || (!explicit && choice["*"] && !d.byName) {
			enabled[d.name] = true
		}
	}
	return enabled, errors.Join(errs...)
}
