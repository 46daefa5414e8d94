package policy

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/sakeeper/sakeeper/pkg/podadmission/rules"
)

// AccountDefaults are the settings of the policy that completes new ServiceAccounts. It changes nothing that
// an account says itself.
type AccountDefaults struct {
	// NamespaceSelector selects the namespaces, as a label selector. Empty: all that are not excluded.
	NamespaceSelector string
	// NoAutomount sets automountServiceAccountToken to false.
	NoAutomount bool
	// PullSecrets are the imagePullSecrets of an account that has none.
	PullSecrets []string
	Labels      map[string]string
}

func defaultAccountDefaults() AccountDefaults {
	return AccountDefaults{NamespaceSelector: "sakeeper.io/account-defaults=enabled", NoAutomount: true}
}

func (s AccountDefaults) check() []error {
	var errs []error
	if _, err := metav1.ParseToLabelSelector(s.NamespaceSelector); err != nil {
		errs = append(errs, fmt.Errorf("--account-namespace-selector: %w", err))
	}
	for _, name := range s.PullSecrets {
		for _, problem := range validation.IsDNS1123Subdomain(name) {
			errs = append(errs, fmt.Errorf("--account-image-pull-secrets: %q: %s", name, problem))
		}
	}
	for _, key := range slices.Sorted(maps.Keys(s.Labels)) {
		for _, problem := range append(validation.IsQualifiedName(key), validation.IsValidLabelValue(s.Labels[key])...) {
			errs = append(errs, fmt.Errorf("--account-labels: %s=%s: %s", key, s.Labels[key], problem))
		}
	}
	if !s.NoAutomount && len(s.PullSecrets) == 0 && len(s.Labels) == 0 {
		errs = append(errs, fmt.Errorf("%s: none of --account-no-automount, --account-image-pull-secrets, --account-labels is set, so that it would change nothing", AccountDefaultsName))
	}
	return errs
}

func (s AccountDefaults) generate(excluded []string) []runtime.Object {
	selector, err := metav1.ParseToLabelSelector(s.NamespaceSelector)
	if err != nil {
		panic("policy: internal error: generate without check: " + err.Error())
	}
	if others := except(excluded); others != nil {
		selector.MatchExpressions = append(selector.MatchExpressions, others.MatchExpressions...)
	}
	var parts []string
	if s.NoAutomount {
		parts = append(parts, "(has(object.automountServiceAccountToken) ? [] :\n  [JSONPatch{op: 'add', path: '/automountServiceAccountToken', value: false}])")
	}
	if len(s.PullSecrets) > 0 {
		var secrets []string
		for _, name := range s.PullSecrets {
			secrets = append(secrets, "{'name': "+quote(name)+"}")
		}
		// Plain maps: kube-apiserver 1.36 panics at a list of typed objects.
		parts = append(parts, "(size(object.?imagePullSecrets.orValue([])) > 0 ? [] :\n  [JSONPatch{op: 'add', path: '/imagePullSecrets', value: ["+strings.Join(secrets, ", ")+"]}])")
	}
	if len(s.Labels) > 0 {
		parts = append(parts, "(has(object.metadata.labels) ? [] :\n  [JSONPatch{op: 'add', path: '/metadata/labels', value: {}}])")
	}
	for _, key := range slices.Sorted(maps.Keys(s.Labels)) {
		parts = append(parts, "(object.metadata.?labels[?"+quote(key)+"].hasValue() ? [] :\n  [JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey("+quote(key)+"), value: "+quote(s.Labels[key])+"}])")
	}
	return mutating{
		name: AccountDefaultsName, namespaces: selector, resource: rule("serviceaccounts", admissionregistrationv1.Create),
		patch: strings.Join(parts, " +\n"),
	}.objects()
}

// TokenSeconds are the settings of the policy that changes the lifetime of the tokens which the in-tree plugin
// and the webhook mount.
type TokenSeconds struct{ Seconds int64 }

func defaultTokenSeconds() TokenSeconds { return TokenSeconds{Seconds: 3600} }

func (s TokenSeconds) check() []error {
	if s.Seconds == rules.TokenSeconds {
		return []error{fmt.Errorf("--token-expiration-seconds: %d is what pods have without the policy", s.Seconds)}
	}
	if err := rules.CheckTokenSeconds(s.Seconds); err != nil {
		return []error{fmt.Errorf("--token-expiration-seconds: %w", err)}
	}
	return nil
}

func (s TokenSeconds) generate(excluded []string) []runtime.Object {
	wrote := fmt.Sprintf("s.?serviceAccountToken.?expirationSeconds.orValue(0) == %d && s.?serviceAccountToken.?audience.orValue('') == ''", rules.TokenSeconds)
	volume := "v.name.startsWith(" + quote(rules.TokenVolumePrefix) + ")"
	return mutating{
		name: TokenSecondsName, namespaces: except(excluded), resource: rule("pods", admissionregistrationv1.Create),
		patch: "object.spec.?volumes.orValue([]).transformList(i, v, " + volume + ",\n  v.?projected.?sources.orValue([]).transformList(j, s, " + wrote + ",\n    " +
			"JSONPatch{op: 'replace', path: '/spec/volumes/' + string(i) + '/projected/sources/' + string(j) + '/serviceAccountToken/expirationSeconds', value: " +
			strconv.FormatInt(s.Seconds, 10) + "})).flatten()",
	}.objects()
}

// mutating is a MutatingAdmissionPolicy before it is bound. It has no match conditions: an API server evaluates a
// policy again, after a later one changed the object, only if its match conditions were true the first time.
type mutating struct {
	name       string // without namePrefix
	resource   admissionregistrationv1.NamedRuleWithOperations
	namespaces *metav1.LabelSelector
	params     *admissionregistrationv1.ParamKind // all objects of that kind are its parameters; nil: it has none
	variables  []admissionregistrationv1.Variable
	patch      string // the expression for a list of JSONPatch
}

// objects returns the policy and its binding. It is evaluated again if a later policy or webhook changes the object,
// so that the order does not matter.
func (m mutating) objects() []runtime.Object {
	failure := admissionregistrationv1.Fail
	name := namePrefix + m.name
	p := &admissionregistrationv1.MutatingAdmissionPolicy{
		TypeMeta:   metav1.TypeMeta{APIVersion: admissionregistrationv1.SchemeGroupVersion.String(), Kind: "MutatingAdmissionPolicy"},
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: admissionregistrationv1.MutatingAdmissionPolicySpec{
			FailurePolicy: &failure, ReinvocationPolicy: admissionregistrationv1.IfNeededReinvocationPolicy,
			MatchConstraints: &admissionregistrationv1.MatchResources{
				NamespaceSelector: m.namespaces, ResourceRules: []admissionregistrationv1.NamedRuleWithOperations{m.resource},
			},
			ParamKind: m.params, Variables: m.variables,
			Mutations: []admissionregistrationv1.Mutation{{
				PatchType: admissionregistrationv1.PatchTypeJSONPatch, JSONPatch: &admissionregistrationv1.JSONPatch{Expression: m.patch},
			}},
		},
	}
	b := &admissionregistrationv1.MutatingAdmissionPolicyBinding{
		TypeMeta:   metav1.TypeMeta{APIVersion: p.APIVersion, Kind: "MutatingAdmissionPolicyBinding"},
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       admissionregistrationv1.MutatingAdmissionPolicyBindingSpec{PolicyName: name},
	}
	if m.params != nil {
		notFound := admissionregistrationv1.AllowAction
		b.Spec.ParamRef = &admissionregistrationv1.ParamRef{Selector: &metav1.LabelSelector{}, ParameterNotFoundAction: &notFound}
	}
	return []runtime.Object{p, b}
}
