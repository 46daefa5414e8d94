package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
)

// The names of the policies.
const (
	SecretReferencesName = "secret-references"
	AccountDefaultsName  = "account-defaults"
	AccountTemplatesName = "account-templates"
	TokenLimitsName      = "token-limits"
	TokenSecondsName     = "token-seconds"
)

// namePrefix begins the names of the objects.
const namePrefix = "sakeeper-"

// Mode says what the API server does with a request that a rule refuses.
type Mode string

// The modes. Only Deny fails closed: with the others, a request for which the API server cannot evaluate
// the policy is allowed.
const (
	Deny  Mode = "deny"
	Warn  Mode = "warn"  // allow it, and warn the client
	Audit Mode = "audit" // allow it, and annotate it in the audit log
)

// Settings are the settings of all policies.
type Settings struct {
	// ExcludedNamespaces are those whose objects no policy checks or changes.
	ExcludedNamespaces []string
	SecretReferences   SecretReferences
	AccountDefaults    AccountDefaults
	TokenLimits        TokenLimits
	TokenSeconds       TokenSeconds
}

// Defaults returns the settings with which manifests/components/policies are made.
func Defaults() Settings {
	return Settings{
		ExcludedNamespaces: []string{metav1.NamespaceSystem, "sakeeper-system"},
		SecretReferences:   defaultSecretReferences(),
		AccountDefaults:    defaultAccountDefaults(),
		TokenLimits:        defaultTokenLimits(),
		TokenSeconds:       defaultTokenSeconds(),
	}
}

// definition is how one policy is made.
type definition struct {
	name  string
	since Version
	// needs is what API servers before since lack.
	needs    string
	check    func(Settings) []error
	generate func(Settings) []runtime.Object
}

const mutatingKind = "MutatingAdmissionPolicy in admissionregistration.k8s.io/v1"

func definitions() []definition {
	return []definition{
		{
			SecretReferencesName, oldest(), "",
			func(s Settings) []error { return s.SecretReferences.check() },
			func(s Settings) []runtime.Object { return s.SecretReferences.generate(s.ExcludedNamespaces) },
		},
		{
			AccountDefaultsName, mutatingSince(), mutatingKind,
			func(s Settings) []error { return s.AccountDefaults.check() },
			func(s Settings) []runtime.Object { return s.AccountDefaults.generate(s.ExcludedNamespaces) },
		},
		{
			AccountTemplatesName, mutatingSince(), mutatingKind,
			func(Settings) []error { return nil }, // it has none: the templates say all
			func(s Settings) []runtime.Object { return accountTemplates(s.ExcludedNamespaces) },
		},
		{
			TokenLimitsName, oldest(), "",
			func(s Settings) []error { return s.TokenLimits.check() },
			func(s Settings) []runtime.Object { return s.TokenLimits.generate(s.ExcludedNamespaces) },
		},
		{
			TokenSecondsName, mutatingSince(), mutatingKind,
			func(s Settings) []error { return s.TokenSeconds.check() },
			func(s Settings) []runtime.Object { return s.TokenSeconds.generate(s.ExcludedNamespaces) },
		},
	}
}

// Names returns the names of all policies.
func Names() []string {
	var names []string
	for _, d := range definitions() {
		names = append(names, d.name)
	}
	return names
}

// Generate returns the objects of the policies of those names, for API servers of that version and later.
// The error has every setting that would make a policy which an API server refuses, by the flag of sakeeper
// policies.
func Generate(names []string, version Version, s Settings) ([]runtime.Object, error) {
	var errs []error
	for _, namespace := range s.ExcludedNamespaces {
		for _, problem := range validation.IsDNS1123Label(namespace) {
			errs = append(errs, fmt.Errorf("--excluded-namespaces: %q: %s", namespace, problem))
		}
	}
	var objects []runtime.Object
	all := definitions()
	for _, name := range names {
		i := slices.IndexFunc(all, func(d definition) bool { return d.name == name })
		if i < 0 {
			errs = append(errs, fmt.Errorf("there is no policy %q; the policies are %s", name, strings.Join(Names(), ", ")))
			continue
		}
		d := all[i]
		if version.before(d.since) {
			errs = append(errs, fmt.Errorf("--for-version: %s needs %s, which API servers have since %s, and not in %s", name, d.needs, d.since, version))
		}
		failed := d.check(s)
		if errs = append(errs, failed...); len(failed) == 0 {
			objects = append(objects, d.generate(s)...)
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return objects, nil
}

// checkMode returns an error if the value of flag is no mode.
func checkMode(flag string, mode Mode) error {
	switch mode {
	case Deny, Warn, Audit:
		return nil
	default:
		return fmt.Errorf("%s: %q is not one of %s, %s, %s", flag, mode, Deny, Warn, Audit)
	}
}

// validating is a ValidatingAdmissionPolicy before it is bound.
type validating struct {
	name        string // without namePrefix
	mode        Mode
	resource    admissionregistrationv1.NamedRuleWithOperations
	more        []admissionregistrationv1.NamedRuleWithOperations
	namespaces  *metav1.LabelSelector
	ofAccounts  bool // its parameter is a ServiceAccount of the namespace
	conditions  []admissionregistrationv1.MatchCondition
	variables   []admissionregistrationv1.Variable
	validations []admissionregistrationv1.Validation
}

// objects returns the policy and its binding.
func (v validating) objects() []runtime.Object {
	failure, notFound := admissionregistrationv1.Fail, admissionregistrationv1.DenyAction
	if v.mode != Deny { // else the API server would refuse what it cannot evaluate
		failure, notFound = admissionregistrationv1.Ignore, admissionregistrationv1.AllowAction
	}
	action := map[Mode]admissionregistrationv1.ValidationAction{
		Deny: admissionregistrationv1.Deny, Warn: admissionregistrationv1.Warn, Audit: admissionregistrationv1.Audit,
	}[v.mode]
	name := namePrefix + v.name
	p := &admissionregistrationv1.ValidatingAdmissionPolicy{
		TypeMeta:   metav1.TypeMeta{APIVersion: admissionregistrationv1.SchemeGroupVersion.String(), Kind: "ValidatingAdmissionPolicy"},
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: admissionregistrationv1.ValidatingAdmissionPolicySpec{
			FailurePolicy: &failure,
			MatchConstraints: &admissionregistrationv1.MatchResources{
				NamespaceSelector: v.namespaces,
				ResourceRules:     append([]admissionregistrationv1.NamedRuleWithOperations{v.resource}, v.more...),
			},
			MatchConditions: v.conditions, Variables: v.variables, Validations: v.validations,
		},
	}
	if v.ofAccounts {
		p.Spec.MatchConditions = []admissionregistrationv1.MatchCondition{inOne(v.conditions)}
	}
	b := &admissionregistrationv1.ValidatingAdmissionPolicyBinding{
		TypeMeta:   metav1.TypeMeta{APIVersion: p.APIVersion, Kind: "ValidatingAdmissionPolicyBinding"},
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: admissionregistrationv1.ValidatingAdmissionPolicyBindingSpec{
			PolicyName: name, ValidationActions: []admissionregistrationv1.ValidationAction{action},
		},
	}
	if v.ofAccounts {
		p.Spec.ParamKind = &admissionregistrationv1.ParamKind{APIVersion: "v1", Kind: "ServiceAccount"}
		b.Spec.ParamRef = &admissionregistrationv1.ParamRef{Selector: &metav1.LabelSelector{}, ParameterNotFoundAction: &notFound}
	}
	return []runtime.Object{p, b}
}

// inOne returns one condition for all, with the name of the first. For each account of the namespace, the API
// server evaluates every condition, even after one was false; && ends at the first that is false.
func inOne(conditions []admissionregistrationv1.MatchCondition) admissionregistrationv1.MatchCondition {
	var expressions []string
	for _, c := range conditions {
		expressions = append(expressions, "("+c.Expression+")")
	}
	return admissionregistrationv1.MatchCondition{Name: conditions[0].Name, Expression: strings.Join(expressions, " &&\n")}
}

// rule returns the rule for an operation on a resource of the core API group.
func rule(resource string, operation admissionregistrationv1.OperationType) admissionregistrationv1.NamedRuleWithOperations {
	scope := admissionregistrationv1.NamespacedScope
	return admissionregistrationv1.NamedRuleWithOperations{RuleWithOperations: admissionregistrationv1.RuleWithOperations{
		Operations: []admissionregistrationv1.OperationType{operation},
		Rule:       admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{resource}, Scope: &scope},
	}}
}

// except returns the selector of all namespaces but those; nil if there are none.
func except(namespaces []string) *metav1.LabelSelector {
	if len(namespaces) == 0 {
		return nil
	}
	return &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
		{Key: corev1.LabelMetadataName, Operator: metav1.LabelSelectorOpNotIn, Values: namespaces},
	}}
}
