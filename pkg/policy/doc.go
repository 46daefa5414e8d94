// Package policy makes admission policies: ValidatingAdmissionPolicies and MutatingAdmissionPolicies,
// which the API server evaluates itself, without a webhook.
//
// The rules about Secret references are made from the tables of
// [github.com/sakeeper/sakeeper/pkg/podadmission/rules] and
// [github.com/sakeeper/sakeeper/pkg/podadmission/secretrefs], which the webhook uses too, so that a kind
// of reference that is added there is in the policy.
//
// [Generate] returns the objects of one of [Names], and [Write] prints them. The package reads and
// writes nothing else. manifests/components/policies has the output for the settings of [Defaults].
//
// Some policies have the pod's ServiceAccount as their parameter: the binding selects every account of
// the pod's namespace, and a match condition skips those with another name. The API server has them in a
// cache. An account that is not in it yet is not a parameter, and then the policy checks nothing for the
// pods of that account; if the namespace has no account at all, the pod is refused.
//
// The policy account-templates has the ServiceAccountTemplates of the cluster as its parameters, and sets what
// [github.com/sakeeper/sakeeper/pkg/controllers/accounttemplate] would set after the creation of an account.
package policy
