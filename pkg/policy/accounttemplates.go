package policy

import (
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/api/v1alpha1"
)

// The API server evaluates the policy once for each ServiceAccountTemplate, in an order that no user can choose, and
// maybe twice. An evaluation sees what those before it have made of the account, but no other template. So that the
// result is that of pkg/controllers/accounttemplate in every order, each notes on the account what the templates so
// far say together, in [api.TemplatesAtCreationAnnotation]. The fields follow from that and from what the creator said.
//
// What the creator said is in managedFields, which API servers write before admission: what another policy or a
// webhook has set has no owner there, and templates decide about it.
//
// The policy notes in managedFields that the controller's field manager owns what it sets, the annotation too. So the
// controller has nothing to take over, and its apply, which does not have the annotation, removes it.

// accountTemplates returns the policy.
func accountTemplates(excluded []string) []runtime.Object {
	return mutating{
		name: AccountTemplatesName, namespaces: except(excluded), resource: rule("serviceaccounts", admissionregistrationv1.Create),
		params:    &admissionregistrationv1.ParamKind{APIVersion: v1alpha1.GroupVersion.String(), Kind: "ServiceAccountTemplate"},
		variables: append(append(templateSelection(), templateState()...), templateDecision()...),
		patch:     templatePatch(),
	}.objects()
}

// filled returns an expression with the names in place of {annotation} and the like.
func filled(expression string) string {
	return strings.NewReplacer(
		"{annotation}", api.TemplatesAtCreationAnnotation,
		"{manager}", api.TemplateFieldManager,
		"{default}", api.DefaultServiceAccount,
		"{kube-system}", metav1.NamespaceSystem,
		"{metadata.name}", corev1.LabelMetadataName,
	).Replace(expression)
}

// templateSelection returns the variables that say which accounts the template selects.
func templateSelection() []admissionregistrationv1.Variable {
	return []admissionregistrationv1.Variable{
		{Name: "ofNamespaces", Expression: "params.spec.?namespaceSelector.orValue({})"},
		{Name: "ofAccounts", Expression: "params.spec.?serviceAccountSelector.orValue({})"},
		{Name: "namespaceLabels", Expression: "namespaceObject.metadata.?labels.orValue({})"},
		{Name: "accountLabels", Expression: "object.metadata.?labels.orValue({})"},
		{Name: "isValid", Expression: isValid("variables.ofNamespaces") + " &&\n" + isValid("variables.ofAccounts")},
		// As namesKubeSystem in pkg/cache.
		{Name: "selectsNamespace", Expression: filled(`(request.namespace != '{kube-system}' ||
  variables.ofNamespaces.?matchLabels[?'{metadata.name}'].orValue('') == '{kube-system}' ||
  variables.ofNamespaces.?matchExpressions.orValue([]).exists(e,
    e.key == '{metadata.name}' && e.operator == 'In' && '{kube-system}' in e.?values.orValue([]))) &&
`) + matches("variables.ofNamespaces", "variables.namespaceLabels")},
		{Name: "selectsAccount", Expression: filled(`!has(params.spec.serviceAccountSelector) ?
  object.metadata.?name.orValue('') in params.spec.?names.orValue(['{default}']) :
`) + matches("variables.ofAccounts", "variables.accountLabels")},
	}
}

// isValid returns the expression that is true if a label selector can be parsed. A template with another one selects
// nothing.
func isValid(selector string) string {
	return strings.ReplaceAll(`SELECTOR.?matchLabels.orValue({}).all(k, v,
  !format.qualifiedName().validate(k).hasValue() && !format.labelValue().validate(v).hasValue()) &&
SELECTOR.?matchExpressions.orValue([]).all(e, !format.qualifiedName().validate(e.key).hasValue() &&
  (e.operator in ['In', 'NotIn'] ?
    size(e.?values.orValue([])) > 0 && e.values.all(v, !format.labelValue().validate(v).hasValue()) :
    e.operator in ['Exists', 'DoesNotExist'] && size(e.?values.orValue([])) == 0))`, "SELECTOR", selector)
}

// matches returns the expression that is true if a valid label selector selects labels.
func matches(selector, labels string) string {
	return strings.NewReplacer("SELECTOR", selector, "LABELS", labels).Replace(`(SELECTOR.?matchLabels.orValue({}).all(k, v, k in LABELS && LABELS[k] == v) &&
SELECTOR.?matchExpressions.orValue([]).all(e,
  e.operator == 'In' ? e.key in LABELS && LABELS[e.key] in e.values :
  e.operator == 'NotIn' ? !(e.key in LABELS && LABELS[e.key] in e.values) :
  e.operator == 'Exists' ? e.key in LABELS : !(e.key in LABELS)))`)
}

// noteForm matches the annotation.
const noteForm = `^(-?[0-9]{1,10}/[^/;]+/(true|false|unset)?)?;[^;]*;(force)?;[^;]*$`

// templateState returns the variables that say what the creator said, and what the templates before have decided.
func templateState() []admissionregistrationv1.Variable {
	return []admissionregistrationv1.Variable{
		{Name: "entries", Expression: "object.metadata.?managedFields.orValue([])"},
		{Name: "ours", Expression: filled("variables.entries.transformList(i, m, m.?manager.orValue('') == '{manager}' && m.?operation.orValue('') == 'Apply', i)")},
		{Name: "owned", Expression: "size(variables.ours) > 0 ? variables.entries[variables.ours[0]].?fieldsV1.orValue({}) : {}"},
		{Name: "creatorOwns", Expression: `variables.entries.transformList(i, m, !(i in variables.ours), m.?fieldsV1.orValue({})).map(owned,
  ['f:automountServiceAccountToken', 'f:imagePullSecrets'].filter(f, f in owned)).flatten()`},
		// An annotation of the creator does not count: the policy's is owned by the field manager of the controller.
		{Name: "note", Expression: filled(`variables.owned[?'f:metadata'][?'f:annotations'][?'f:{annotation}'].hasValue() ?
  object.metadata.?annotations[?'{annotation}'].orValue('') : ''`)},
		{Name: "isNoted", Expression: "variables.note.matches(" + quote(noteForm) + ")"},
		{Name: "parts", Expression: "(variables.isNoted ? variables.note : ';;;').split(';')"},
		{Name: "decider", Expression: "variables.parts[0] == '' ? [] : variables.parts[0].split('/')"},
		{Name: "creatorsAutomount", Expression: `size(variables.decider) > 0 ? variables.decider[2] :
  !('f:automountServiceAccountToken' in variables.creatorOwns) ? '' :
  !has(object.automountServiceAccountToken) ? 'unset' :
  object.automountServiceAccountToken ? 'true' : 'false'`},
		// Names that no Secret has cannot be those of templates.
		{Name: "creatorsPullSecrets", Expression: `variables.isNoted ? variables.parts[3] :
  !('f:imagePullSecrets' in variables.creatorOwns) ? '' :
  has(object.imagePullSecrets) && object.imagePullSecrets.all(s, s.?name.orValue('').matches('^[-a-z0-9.]+$')) ?
    object.imagePullSecrets.map(s, string(s.name)).join(',') : '!'`},
	}
}

// templateDecision returns the variables that say what is decided with this template. A field that the creator has
// set is set only by force, and only to another value.
func templateDecision() []admissionregistrationv1.Variable {
	return []admissionregistrationv1.Variable{
		{Name: "priority", Expression: "int(params.spec.?priority.orValue(0))"},
		{Name: "force", Expression: "params.spec.?force.orValue(false)"},
		{Name: "decidesAutomount", Expression: `has(params.spec.automountServiceAccountToken) && (size(variables.decider) == 0 ||
  variables.priority > int(variables.decider[0]) ||
  variables.priority == int(variables.decider[0]) && params.metadata.name <= variables.decider[1])`},
		{Name: "setsAutomount", Expression: `variables.creatorsAutomount == '' ||
  variables.force && variables.creatorsAutomount != (params.spec.automountServiceAccountToken ? 'true' : 'false')`},
		{Name: "pullSecrets", Expression: "params.spec.?imagePullSecrets.orValue([]).map(s, string(s.name))"},
		{Name: "allPullSecrets", Expression: "(variables.parts[1].split(',') + variables.pullSecrets).filter(n, n != '').distinct().sort()"},
		{Name: "decidesPullSecrets", Expression: "size(variables.pullSecrets) > 0"},
		{Name: "forcesPullSecrets", Expression: "variables.parts[2] == 'force' || variables.decidesPullSecrets && variables.force"},
		{Name: "setsPullSecrets", Expression: `variables.creatorsPullSecrets == '' ||
  variables.forcesPullSecrets && variables.creatorsPullSecrets != variables.allPullSecrets.join(',')`},
		{Name: "decision", Expression: `[variables.decidesAutomount ?
    string(variables.priority) + '/' + params.metadata.name + '/' + variables.creatorsAutomount : variables.parts[0],
  variables.allPullSecrets.join(','), variables.forcesPullSecrets ? 'force' : '', variables.creatorsPullSecrets].join(';')`},
		// What the controller has created has its field manager, no annotation, and all fields.
		{Name: "changes", Expression: `variables.isValid && variables.selectsNamespace && variables.selectsAccount &&
(size(variables.ours) == 0 || variables.isNoted) && (variables.decidesAutomount || variables.decidesPullSecrets)`},
		{Name: "fields", Expression: filled(`{
  'f:metadata': dyn({'f:annotations': {'f:{annotation}': {}}}),
  ?'f:automountServiceAccountToken': (variables.decidesAutomount ? variables.setsAutomount : 'f:automountServiceAccountToken' in variables.owned) ?
    optional.of(dyn({})) : optional.none(),
  ?'f:imagePullSecrets': (variables.decidesPullSecrets ? variables.setsPullSecrets : 'f:imagePullSecrets' in variables.owned) ?
    optional.of(dyn({})) : optional.none()}`)},
		{Name: "entry", Expression: filled(`{'manager': dyn('{manager}'), 'operation': dyn('Apply'), 'apiVersion': dyn('v1'),
  'fieldsType': dyn('FieldsV1'), 'fieldsV1': dyn(variables.fields)}`)},
	}
}

// templatePatch returns the expression for the list of JSONPatch. Values are plain maps, because kube-apiserver 1.36
// panics at a list of typed objects.
func templatePatch() string {
	return filled(`!variables.changes ? [] :
(has(object.metadata.annotations) ? [] :
  [JSONPatch{op: 'add', path: '/metadata/annotations', value: {}}]) +
[JSONPatch{op: 'add', path: '/metadata/annotations/' + jsonpatch.escapeKey('{annotation}'), value: variables.decision}] +
variables.entries.transformList(i, m, !(i in variables.ours) && m.?fieldsV1[?'f:metadata'][?'f:annotations'][?'f:{annotation}'].hasValue(),
  JSONPatch{op: 'remove', path: '/metadata/managedFields/' + string(i) + '/fieldsV1/f:metadata/f:annotations/' + jsonpatch.escapeKey('f:{annotation}')}) +
`) + fieldPatch("Automount", "automountServiceAccountToken", "value: params.spec.automountServiceAccountToken",
		`(variables.creatorsAutomount != 'unset' ?
    [JSONPatch{op: 'add', path: '/automountServiceAccountToken', value: variables.creatorsAutomount == 'true'}] :
    has(object.automountServiceAccountToken) ? [JSONPatch{op: 'remove', path: '/automountServiceAccountToken'}] : [])`) + " +\n" +
		fieldPatch("PullSecrets", "imagePullSecrets", "value: variables.allPullSecrets.map(n, {'name': n})",
			`[JSONPatch{op: 'add', path: '/imagePullSecrets', value: variables.allPullSecrets.map(n, {'name': n})}]`) + ` +
(size(variables.ours) > 0 ?
  [JSONPatch{op: 'replace', path: '/metadata/managedFields/' + string(variables.ours[0]) + '/fieldsV1', value: variables.fields}] :
 size(variables.entries) > 0 ?
  [JSONPatch{op: 'add', path: '/metadata/managedFields/-', value: variables.entry}] :
  [JSONPatch{op: 'add', path: '/metadata/managedFields', value: [variables.entry]}])`
}

// fieldPatch returns the expression for the patches of one field. What is set by force is taken from the other field
// managers, as an apply by force does. A template before may have taken what the creator is to keep, because it alone
// says force but has a lower priority, or because the others make the same list: then the creator gets it back.
func fieldPatch(decision, field, value, back string) string {
	return strings.NewReplacer("DECISION", decision, "FIELD", field, "VALUE", value, "BACK", back).Replace(`(!variables.decidesDECISION ? [] :
 variables.setsDECISION ?
  [JSONPatch{op: 'add', path: '/FIELD', VALUE}] +
  variables.entries.transformList(i, m, !(i in variables.ours) && 'f:FIELD' in m.?fieldsV1.orValue({}),
    JSONPatch{op: 'remove', path: '/metadata/managedFields/' + string(i) + '/fieldsV1/f:FIELD'}) :
 'f:FIELD' in variables.creatorOwns ? [] :
  BACK +
  variables.entries.transformList(i, m, !(i in variables.ours),
    JSONPatch{op: 'add', path: '/metadata/managedFields/' + string(i) + '/fieldsV1/f:FIELD', value: {}}))`)
}
