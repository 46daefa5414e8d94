package policies

import (
	"github.com/spf13/pflag"
	cliflag "k8s.io/component-base/cli/flag"

	"github.com/sakeeper/sakeeper/pkg/policy"
)

// Options are the flags of sakeeper policies.
type Options struct {
	version  string
	settings policy.Settings
}

func newOptions() *Options {
	return &Options{version: policy.Newest().String(), settings: policy.Defaults()}
}

func (o *Options) sections() *cliflag.NamedFlagSets {
	sections := &cliflag.NamedFlagSets{}
	o.addFlags(sections.FlagSet("policies"))
	o.addSecretReferences(sections.FlagSet(policy.SecretReferencesName))
	o.addAccountDefaults(sections.FlagSet(policy.AccountDefaultsName))
	o.addTokenLimits(sections.FlagSet(policy.TokenLimitsName))
	o.addTokenSeconds(sections.FlagSet(policy.TokenSecondsName))
	return sections
}

func (o *Options) addFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.version, "for-version", o.version,
		"Version of the oldest API server that gets the policies. A policy that it lacks is refused.")
	fs.StringSliceVar(&o.settings.ExcludedNamespaces, "excluded-namespaces", o.settings.ExcludedNamespaces,
		"Namespaces in which no policy checks or changes anything.")
}

func (o *Options) addSecretReferences(fs *pflag.FlagSet) {
	s := &o.settings.SecretReferences
	fs.BoolVar(&s.Limit, "limit-secret-references", s.Limit,
		"Let pods name only Secrets that their ServiceAccount lists. False: those pods whose ServiceAccount has the annotation kubernetes.io/enforce-mountable-secrets=true.")
	fs.StringVar((*string)(&s.Scope), "secret-reference-scope", string(s.Scope),
		"Which references to Secrets are limited: 'in-tree' Secret volumes, env, envFrom and imagePullSecrets; 'all' every kind that a pod can have, such as projected and CSI volumes.")
	addMode(fs, &s.Mode, "secret-reference-mode", "a pod that names another Secret")
}

func (o *Options) addTokenLimits(fs *pflag.FlagSet) {
	s := &o.settings.TokenLimits
	fs.DurationVar(&s.MaxLifetime, "max-token-lifetime", s.MaxLifetime,
		"Longest lifetime of tokens in namespaces without the annotation sakeeper.io/max-token-lifetime. 0: there is no limit. Less than 3607s refuses the volumes that pods get by default.")
	fs.StringSliceVar(&s.AllowedAudiences, "allowed-audiences", s.AllowedAudiences,
		"Audiences, besides --api-audiences, that tokens may have in namespaces without the annotation sakeeper.io/allowed-audiences. Empty: any.")
	fs.StringSliceVar(&s.APIAudiences, "api-audiences", s.APIAudiences,
		"The flag of this name of kube-apiserver, by default its issuer: tokens may have these audiences in any case, and a request of 3607s for them that is bound to a pod counts as 8760h.")
	addMode(fs, &s.Mode, "token-limit-mode", "a request for another token, and to a pod with one")
	addMode(fs, &s.SecretsMode, "token-secrets-mode",
		"a new Secret of type kubernetes.io/service-account-token in a namespace without the label sakeeper.io/token-secrets=allowed")
}

func (o *Options) addAccountDefaults(fs *pflag.FlagSet) {
	s := &o.settings.AccountDefaults
	fs.StringVar(&s.NamespaceSelector, "account-namespace-selector", s.NamespaceSelector,
		"Label selector of the namespaces whose new ServiceAccounts are completed. Empty: all but --excluded-namespaces.")
	fs.BoolVar(&s.NoAutomount, "account-no-automount", s.NoAutomount,
		"Set automountServiceAccountToken to false in a ServiceAccount that does not say it. Its pods get a token only if they ask for it.")
	fs.StringSliceVar(&s.PullSecrets, "account-image-pull-secrets", s.PullSecrets,
		"imagePullSecrets of a ServiceAccount that has none.")
	fs.StringToStringVar(&s.Labels, "account-labels", s.Labels,
		"Labels, as key=value, of a ServiceAccount that has no label with that key.")
}

func (o *Options) addTokenSeconds(fs *pflag.FlagSet) {
	s := &o.settings.TokenSeconds
	fs.Int64Var(&s.Seconds, "token-expiration-seconds", s.Seconds,
		"Lifetime of the tokens that pods get by default, instead of 3607, which API servers extend to a year: clients that never read the file again fail after that time. Volumes that a user wrote are not changed.")
}

func addMode(fs *pflag.FlagSet, mode *policy.Mode, name, what string) {
	fs.StringVar((*string)(mode), name, string(*mode),
		"What happens to "+what+": 'deny' it is refused; 'warn' its client is warned; 'audit' the audit log says so. Only 'deny' refuses what the API server cannot evaluate.")
}
