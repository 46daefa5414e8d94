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
	return sections
}

func (o *Options) addFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.version, "for-version", o.version,
		"Version of the oldest API server that gets the policies. A policy that it lacks is refused.")
	fs.StringSliceVar(&o.settings.ExcludedNamespaces, "excluded-namespaces", o.settings.ExcludedNamespaces,
		"Namespaces in which no validating policy checks anything.")
}

func (o *Options) addSecretReferences(fs *pflag.FlagSet) {
	s := &o.settings.SecretReferences
	fs.BoolVar(&s.Limit, "limit-secret-references", s.Limit,
		"Let pods name only Secrets that their ServiceAccount lists. False: those pods whose ServiceAccount has the annotation kubernetes.io/enforce-mountable-secrets=true.")
	fs.StringVar((*string)(&s.Scope), "secret-reference-scope", string(s.Scope),
		"Which references to Secrets are limited: 'in-tree' Secret volumes, env, envFrom and imagePullSecrets; 'all' every kind that a pod can have, such as projected and CSI volumes.")
	addMode(fs, &s.Mode, "secret-reference-mode", "a pod that names another Secret")
}

func addMode(fs *pflag.FlagSet, mode *policy.Mode, name, what string) {
	fs.StringVar((*string)(mode), name, string(*mode),
		"What happens to "+what+": 'deny' it is refused; 'warn' its client is warned; 'audit' the audit log says so. Only 'deny' refuses what the API server cannot evaluate.")
}
