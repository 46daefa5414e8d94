package policy

import (
	"errors"
	"fmt"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/podadmission/rules"
	"github.com/sakeeper/sakeeper/pkg/podadmission/secretrefs"
)

// SecretReferences are the settings of the policy that limits the Secrets which pods may name. Limit and
// Scope are those of [rules.Settings].
type SecretReferences struct {
	Mode  Mode
	Limit bool
	Scope rules.Scope
}

// defaultSecretReferences limits what the in-tree plugin does not: the other kinds of references.
func defaultSecretReferences() SecretReferences {
	return SecretReferences{Mode: Deny, Scope: rules.AllScope}
}

func (s SecretReferences) check() []error {
	var errs []error
	if err := (rules.Settings{SecretReferenceScope: s.Scope}).Check(); err != nil {
		errs = append(errs, fmt.Errorf("--secret-reference-scope: %w", err))
	}
	if s.Scope == "" {
		errs = append(errs, errors.New("--secret-reference-scope: it is empty"))
	}
	if err := checkMode("--secret-reference-mode", s.Mode); err != nil {
		errs = append(errs, err)
	}
	return errs
}

// accountOfPod is the name of the pod's ServiceAccount. When validating policies are evaluated, the API server
// has made the deprecated field equal.
const accountOfPod = "object.spec.?serviceAccountName.orValue('" + api.DefaultServiceAccount + "')"

// onlyAccount is the match condition that skips the accounts with another name than the expression has.
func onlyAccount(name string) admissionregistrationv1.MatchCondition {
	return admissionregistrationv1.MatchCondition{Name: "account", Expression: "params.metadata.name == " + name}
}

// inEphemeral is true for requests that change the ephemeral containers of a pod, and not for those that
// create a pod.
const inEphemeral = "request.?subResource.orValue('') == 'ephemeralcontainers'"

// refusedList is a list in a pod, or of its containers, whose references are checked together.
type refusedList struct {
	name       string // of the variable with the refusals
	refusals   string // the expression of it
	first      string // the expression for the first refusal
	ephemerals bool
}

func (s SecretReferences) generate(excluded []string) []runtime.Object {
	v := validating{
		name: SecretReferencesName, mode: s.Mode, ofAccounts: true, namespaces: except(excluded),
		resource:   rule("pods", admissionregistrationv1.Create),
		more:       []admissionregistrationv1.NamedRuleWithOperations{rule("pods/ephemeralcontainers", admissionregistrationv1.Update)},
		conditions: []admissionregistrationv1.MatchCondition{onlyAccount(accountOfPod)},
		variables: []admissionregistrationv1.Variable{
			{Name: "secrets", Expression: "params.?secrets.orValue([]).map(s, s.?name.orValue(''))"},
			{Name: "pullSecrets", Expression: "params.?imagePullSecrets.orValue([]).map(s, s.?name.orValue(''))"},
		},
	}
	if !s.Limit {
		v.conditions = append(v.conditions, admissionregistrationv1.MatchCondition{
			Name:       "account-limits-its-pods",
			Expression: "params.metadata.?annotations[?" + quote(rules.EnforceAnnotation) + "].orValue('') in " + list(rules.EnforceValues()),
		})
	}
	v.conditions = append(v.conditions, admissionregistrationv1.MatchCondition{
		Name:       "not-a-mirror-pod",
		Expression: inEphemeral + " || !object.metadata.?annotations[?" + quote(corev1.MirrorPodAnnotationKey) + "].hasValue()",
	})
	for _, l := range s.lists() {
		v.variables = append(v.variables, admissionregistrationv1.Variable{Name: l.name, Expression: l.refusals})
		skip := inEphemeral
		if l.ephemerals {
			skip = "!(" + inEphemeral + ")"
		}
		v.validations = append(v.validations, admissionregistrationv1.Validation{
			Expression:        skip + " || size(variables." + l.name + ") == 0",
			MessageExpression: l.first,
			Message:           "the pod names a Secret that its service account does not reference", // if the other is too long
			Reason:            ptr.To(metav1.StatusReasonForbidden),
		})
	}
	return v.objects()
}

// lists returns the lists in the order of [secretrefs.All].
func (s SecretReferences) lists() []refusedList {
	all := []refusedList{{name: "volumes", refusals: s.volumes(), first: "variables.volumes[0]"}}
	for _, kind := range []secretrefs.ContainerKind{secretrefs.Init, secretrefs.Regular, secretrefs.Ephemeral} {
		field := kind.Field()
		all = append(all, refusedList{
			name: field, refusals: containers(kind), first: "variables." + field + "[0][0]", ephemerals: kind == secretrefs.Ephemeral,
		})
	}
	return append(all, refusedList{
		name: "imagePullSecrets", first: "variables.imagePullSecrets[0]",
		refusals: "object.spec.?imagePullSecrets.orValue([]).transformList(i, s,\n  " +
			unlisted(secretrefs.ImagePullSecret, "s") + ",\n  " + refusal(secretrefs.ImagePullSecret, secretrefs.NoContainer, "s") + ")",
	})
}

// volumes returns the expression for the refusals of volumes that are in the scope.
func (s SecretReferences) volumes() string {
	var conditions, messages []string
	for kind := range secretrefs.Kinds() {
		where, inner := kind.List()
		if where != "volumes" || !s.Scope.Limits(kind, secretrefs.NoContainer) {
			continue
		}
		condition, message := unlisted(kind, "v"), refusal(kind, secretrefs.NoContainer, "v")
		if inner != "" {
			sources := optional("v", inner) + ".orValue([])"
			condition = sources + ".exists(s, " + unlisted(kind, "s") + ")"
			message = sources + ".transformList(j, s, " + unlisted(kind, "s") + ", " + refusal(kind, secretrefs.NoContainer, "s") + ")[0]"
		}
		conditions = append(conditions, condition)
		messages = append(messages, condition+" ? "+message)
	}
	last := len(messages) - 1
	messages[last] = strings.TrimPrefix(messages[last], conditions[last]+" ? ")
	return "object.spec.?volumes.orValue([]).transformList(i, v,\n  " + strings.Join(conditions, " ||\n  ") + ",\n  " + strings.Join(messages, " :\n  ") + ")"
}

// containers returns the expression for the refusals of containers: a list for each one that has some. Env
// and envFrom of containers are in every scope.
func containers(kind secretrefs.ContainerKind) string {
	entries := func(of secretrefs.Kind, name string) string {
		field, _ := of.List()
		return "c.?" + field + ".orValue([]).map(" + name + ", " + unlisted(of, name) + ",\n    " + refusal(of, kind, name) + ")"
	}
	return "object.spec.?" + kind.Field() + ".orValue([]).map(c,\n  " +
		entries(secretrefs.Env, "e") + " +\n  " + entries(secretrefs.EnvFrom, "f") + ").filter(r, size(r) > 0)"
}

// unlisted returns the expression that is true if holder, a volume, entry or source, has a reference of that
// kind that the account does not list.
func unlisted(kind secretrefs.Kind, holder string) string {
	listed := "variables.secrets"
	if kind == secretrefs.ImagePullSecret {
		listed = "variables.pullSecrets"
	}
	missing := "!(" + secretName(kind, holder) + " in " + listed + ")"
	if i := strings.LastIndex(kind.Field(), "."); i >= 0 {
		return optional(holder, kind.Field()[:i]) + ".hasValue() && " + missing
	}
	return missing
}

func secretName(kind secretrefs.Kind, holder string) string {
	return optional(holder, kind.Field()) + ".orValue('')"
}

// refusal returns the expression for the message about the reference of that kind in holder. c is the
// container, i the index of the volume or pull secret, and j that of the source.
func refusal(kind secretrefs.Kind, container secretrefs.ContainerKind, holder string) string {
	return sentence(rules.RefusalText(kind, container), map[string]string{
		rules.AccountPlace: "params.metadata.name", rules.SecretPlace: secretName(kind, holder),
		rules.HolderPlace: "c.name", rules.VariablePlace: holder + ".name",
		secretrefs.IndexPlace: "string(i)", secretrefs.InnerPlace: "string(j)",
	})
}
