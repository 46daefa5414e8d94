package policy

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/podadmission/rules"
)

// TokenLimits are the settings of the policies that limit tokens.
type TokenLimits struct {
	Mode Mode
	// MaxLifetime is the longest lifetime in namespaces without the annotation. Zero: there is none.
	MaxLifetime time.Duration
	// AllowedAudiences are the audiences in namespaces without the annotation. Empty: all.
	AllowedAudiences []string
	// APIAudiences are those of the API server, which are always allowed.
	APIAudiences []string
	// SecretsMode says what happens to new Secrets of type kubernetes.io/service-account-token.
	SecretsMode Mode
}

func defaultTokenLimits() TokenLimits {
	return TokenLimits{
		Mode: Deny, SecretsMode: Warn,
		APIAudiences: []string{"https://kubernetes.default.svc", "https://kubernetes.default.svc.cluster.local"},
	}
}

// shortest is the shortest lifetime that API servers accept in a request.
const shortest = 10 * time.Minute

func (s TokenLimits) check() []error {
	var errs []error
	for _, err := range []error{checkMode("--token-limit-mode", s.Mode), checkMode("--token-secrets-mode", s.SecretsMode)} {
		if err != nil {
			errs = append(errs, err)
		}
	}
	if s.MaxLifetime != 0 && (s.MaxLifetime < shortest || s.MaxLifetime%time.Second != 0 || s.MaxLifetime >= 1e6*time.Hour) {
		errs = append(errs, fmt.Errorf("--max-token-lifetime: %v is not a number of seconds from %v to 999999h", s.MaxLifetime, shortest))
	}
	if len(s.APIAudiences) == 0 {
		errs = append(errs, errors.New("--api-audiences: it is empty, and the API server has at least one"))
	}
	errs = append(errs, checkAudiences("--allowed-audiences", s.AllowedAudiences)...)
	return append(errs, checkAudiences("--api-audiences", s.APIAudiences)...)
}

func checkAudiences(flag string, audiences []string) []error {
	var errs []error
	for _, audience := range audiences {
		if audience == "" || strings.ContainsFunc(audience, func(r rune) bool { return r == ',' || unicode.IsSpace(r) || !unicode.IsPrint(r) }) {
			errs = append(errs, fmt.Errorf("%s: %q is empty or has a comma, a space or a control character", flag, audience))
		}
	}
	return errs
}

func (s TokenLimits) generate(excluded []string) []runtime.Object {
	namespace := tokenLimit{
		annotations: "namespaceObject.metadata.?annotations", where: "in namespace {name}", name: "request.namespace",
		lifetime: formatLifetime(s.MaxLifetime), audiences: s.AllowedAudiences,
	}
	account := tokenLimit{annotations: "params.metadata.?annotations", where: "for service account {name}", name: "params.metadata.name"}
	annotated := admissionregistrationv1.MatchCondition{
		Name:       "account-has-limits",
		Expression: account.annotation(api.MaxTokenLifetimeAnnotation) + ".hasValue() || " + account.annotation(api.AllowedAudiencesAnnotation) + ".hasValue()",
	}
	requests := validating{
		name: TokenLimitsName + "-requests", mode: s.Mode, namespaces: except(excluded),
		resource: rule("serviceaccounts/token", admissionregistrationv1.Create), conditions: requesters(), variables: s.requested(),
	}
	pods := validating{
		name: TokenLimitsName + "-pods", mode: s.Mode, namespaces: except(excluded),
		resource: rule("pods", admissionregistrationv1.Create), variables: projected(),
	}
	var objects []runtime.Object
	for _, v := range []validating{requests, pods} {
		of := v
		namespace.addTo(&v, s.APIAudiences)
		accountName := accountOfPod
		if len(v.conditions) > 0 {
			accountName = "request.name"
		}
		of.name, of.ofAccounts = of.name+"-by-account", true
		of.conditions = append([]admissionregistrationv1.MatchCondition{onlyAccount(accountName), annotated}, of.conditions...)
		account.addTo(&of, s.APIAudiences)
		objects = append(append(objects, v.objects()...), of.objects()...)
	}
	return append(objects, s.secrets(excluded)...)
}

// ourControllers is the user name of sakeeper controllers.
const ourControllers = "system:serviceaccount:sakeeper-system:sakeeper-controllers"

// requesters skips the requests of those who have a limit of their own: kube-apiserver, kube-controller-manager
// for its accounts, sakeeper controllers, and kubelets, which fetch what a pod was admitted with.
func requesters() []admissionregistrationv1.MatchCondition {
	const user = "request.userInfo.username"
	return []admissionregistrationv1.MatchCondition{
		{Name: "not-the-control-plane", Expression: "!(" + user + " in " + list([]string{"system:apiserver", ourControllers}) + " ||\n  " +
			user + " == 'system:kube-controller-manager' && request.namespace == " + quote(metav1.NamespaceSystem) + ")"},
		{Name: "not-a-kubelet", Expression: "!('system:nodes' in request.userInfo.?groups.orValue([]) && " + boundToPod + ")"},
	}
}

const boundToPod = "object.spec.?boundObjectRef.?kind.orValue('') == 'Pod'"

// requested returns the lifetimes and audiences of a TokenRequest as lists of lists, like projected.
func (s TokenLimits) requested() []admissionregistrationv1.Variable {
	const seconds = "object.spec.?expirationSeconds.orValue(3600)"
	const year = 365 * 24 * time.Hour // as API servers extend it
	extended := fmt.Sprintf("%s == %d && %s && object.spec.?audiences.orValue([]).all(a, a in %s)", seconds, rules.TokenSeconds, boundToPod, list(s.APIAudiences))
	return []admissionregistrationv1.Variable{
		{Name: "lifetimes", Expression: fmt.Sprintf("[[%s ?\n  %d : %s]]", extended, year/time.Second, seconds)},
		{Name: "audiences", Expression: "[object.spec.?audiences.orValue([])]"},
	}
}

// projected returns the lifetimes and audiences of the tokens in the volumes of a pod, a list for each volume. The
// audience of the API server is empty.
func projected() []admissionregistrationv1.Variable {
	each := func(value string) string {
		return "object.spec.?volumes.orValue([]).map(v,\n  v.?projected.?sources.orValue([]).map(s, s.?serviceAccountToken.hasValue(), s.?serviceAccountToken.?" + value + "))"
	}
	return []admissionregistrationv1.Variable{
		{Name: "lifetimes", Expression: each("expirationSeconds.orValue(3600)")},
		{Name: "audiences", Expression: each("audience.orValue('')")},
	}
}

// tokenLimit is a limit by the annotations of an object.
type tokenLimit struct {
	annotations string   // the expression for the optional annotations
	where       string   // a text about the object, with a place for its name
	name        string   // the expression for the name of the object
	lifetime    string   // without an annotation; empty: no limit
	audiences   []string // without an annotation; empty: no limit
}

func (l tokenLimit) annotation(name string) string { return l.annotations + "[?" + quote(name) + "]" }

// lifetimeForm matches durations that CEL can parse, which are less than 292 years.
const lifetimeForm = "^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?$"

// addTo adds the checks to v, which has the variables lifetimes and audiences.
func (l tokenLimit) addTo(v *validating, apiAudiences []string) {
	lifetime, audiences := l.annotation(api.MaxTokenLifetimeAnnotation), l.annotation(api.AllowedAudiencesAnnotation)
	withinAudiences := "size(variables.otherAudiences) == 0"
	if len(l.audiences) == 0 {
		withinAudiences = "!" + audiences + ".hasValue() || " + withinAudiences
	}
	v.variables = append(append([]admissionregistrationv1.Variable(nil), v.variables...),
		admissionregistrationv1.Variable{Name: "maxLifetime", Expression: lifetime + ".orValue(" + quote(l.lifetime) + ")"},
		admissionregistrationv1.Variable{Name: "tooLong", Expression: "variables.lifetimes.map(l, l.filter(s, s > duration(variables.maxLifetime).getSeconds())).filter(l, size(l) > 0)"},
		admissionregistrationv1.Variable{
			Name:       "allowed",
			Expression: list(append([]string{""}, apiAudiences...)) + " +\n  " + audiences + ".orValue(" + quote(strings.Join(l.audiences, ",")) + ").split(',').map(a, a.trim())",
		},
		admissionregistrationv1.Variable{Name: "otherAudiences", Expression: "variables.audiences.map(l, l.filter(a, !(a in variables.allowed))).filter(l, size(l) > 0)"},
	)
	text := func(text string, values map[string]string) string {
		values["{name}"] = l.name
		return sentence(strings.ReplaceAll(text, "{where}", l.where), values)
	}
	check := func(expression, message string) {
		v.validations = append(v.validations, admissionregistrationv1.Validation{
			Expression: expression, MessageExpression: message,
			Message: "the token is not within the limits of its namespace or service account", // if the other is too long
			Reason:  ptr.To(metav1.StatusReasonForbidden),
		})
	}
	check(lifetime+".orValue('1h') != '' && "+lifetime+".orValue('1h').matches("+quote(lifetimeForm)+")",
		text(api.MaxTokenLifetimeAnnotation+` {where} is "{value}", which is not a duration such as 24h`, map[string]string{"{value}": "variables.maxLifetime"}))
	check("variables.maxLifetime == '' || size(variables.tooLong) == 0",
		text("a token of {seconds} s is not allowed {where}, where {limit} is the longest lifetime", map[string]string{"{seconds}": "string(variables.tooLong[0][0])", "{limit}": "variables.maxLifetime"}))
	check(withinAudiences,
		text(`a token with audience "{audience}" is not allowed {where}`, map[string]string{"{audience}": "variables.otherAudiences[0][0]"}))
}

// formatLifetime returns d as lifetimeForm has it; empty for zero.
func formatLifetime(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return fmt.Sprintf("%dh%dm%ds", d/time.Hour, d%time.Hour/time.Minute, d%time.Minute/time.Second)
}

// secrets returns the policy about tokens that never expire.
func (s TokenLimits) secrets(excluded []string) []runtime.Object {
	namespaces := except(excluded)
	if namespaces == nil {
		namespaces = &metav1.LabelSelector{}
	}
	namespaces.MatchExpressions = append(namespaces.MatchExpressions, metav1.LabelSelectorRequirement{
		Key: api.TokenSecretsLabel, Operator: metav1.LabelSelectorOpNotIn, Values: []string{api.TokenSecretsAllowed},
	})
	const never = "the token of a Secret of type " + string(corev1.SecretTypeServiceAccountToken) + " never expires, and such Secrets are not allowed in this namespace: " +
		"it has no label " + api.TokenSecretsLabel + "=" + api.TokenSecretsAllowed
	return validating{
		name: "token-secrets", mode: s.SecretsMode, namespaces: namespaces, resource: rule("secrets", admissionregistrationv1.Create),
		conditions: []admissionregistrationv1.MatchCondition{
			{Name: "token-secret", Expression: "object.?type.orValue('') == " + quote(string(corev1.SecretTypeServiceAccountToken))},
			{Name: "not-our-controllers", Expression: "request.userInfo.username != " + quote(ourControllers)},
		},
		validations: []admissionregistrationv1.Validation{{Expression: "false", Message: never, Reason: ptr.To(metav1.StatusReasonForbidden)}},
	}.objects()
}
