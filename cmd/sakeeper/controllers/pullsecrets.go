package controllers

import (
	"fmt"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/sakeeper/sakeeper/pkg/controllers/pullsecretcopy"
)

const (
	pullSecretSourcesFlag = "pull-secret-source-namespaces"
	pullSecretTargetsFlag = "pull-secret-target-namespaces"
)

func (o *Options) addPullSecretFlags(fs *pflag.FlagSet) {
	fs.StringSliceVar(&o.suite.PullSecretCopy.SourceNamespaces, pullSecretSourcesFlag, o.suite.PullSecretCopy.SourceNamespaces,
		"Namespaces whose pull secrets the pull-secret-copy-controller may copy, if a ServiceAccountTemplate names them. Without this flag, nothing is copied. Who may write templates may have these Secrets copied to any namespace.")
	fs.StringSliceVar(&o.suite.PullSecretCopy.TargetNamespaces, pullSecretTargetsFlag, o.suite.PullSecretCopy.TargetNamespaces,
		"Namespaces in which copies of pull secrets are kept, where templates select them; empty: all. With this flag, the rights to Secrets can be bound in these namespaces and those of the sources alone.")
}

func (o *Options) validatePullSecrets(on bool) []error {
	settings := o.suite.PullSecretCopy
	errs := append(checkNamespaces(pullSecretSourcesFlag, settings.SourceNamespaces), checkNamespaces(pullSecretTargetsFlag, settings.TargetNamespaces)...)
	if !on && len(settings.SourceNamespaces)+len(settings.TargetNamespaces) > 0 {
		errs = append(errs, fmt.Errorf("--%s and --%s are for the %s, which is off; to turn it on, use --controllers=*,%s",
			pullSecretSourcesFlag, pullSecretTargetsFlag, pullsecretcopy.Name, pullsecretcopy.Name))
	}
	return errs
}

func checkNamespaces(flag string, names []string) []error {
	var errs []error
	for _, name := range names {
		for _, problem := range validation.IsDNS1123Label(name) {
			errs = append(errs, fmt.Errorf("--%s: %q: %s", flag, name, problem))
		}
	}
	return errs
}
