package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// ServiceAccountTemplate says how ServiceAccounts should look. The
// service-account-template-controller applies it to every ServiceAccount that it selects, and
// removes what it set when the template no longer says it.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=sat
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Priority",type=integer,JSONPath=`.spec.priority`
// +kubebuilder:printcolumn:name="Namespaces",type=integer,JSONPath=`.status.namespaces`
// +kubebuilder:printcolumn:name="Accounts",type=integer,JSONPath=`.status.serviceAccounts`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Conflict",type=string,JSONPath=`.status.conditions[?(@.type=="Conflict")].status`
// +kubebuilder:printcolumn:name="Copies",type=string,JSONPath=`.status.conditions[?(@.type=="CopiesReady")].status`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type ServiceAccountTemplate struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +required
	Spec ServiceAccountTemplateSpec `json:"spec"`
	// +optional
	Status ServiceAccountTemplateStatus `json:"status,omitzero"`
}

// ServiceAccountTemplateSpec selects ServiceAccounts, and says how they should look.
//
// +kubebuilder:validation:XValidation:rule="!has(self.names) || !has(self.serviceAccountSelector)",message="names and serviceAccountSelector exclude each other"
// +kubebuilder:validation:XValidation:rule="!has(self.create) || !self.create || !has(self.serviceAccountSelector)",message="create needs names: a selector names no ServiceAccount"
type ServiceAccountTemplateSpec struct {
	// namespaceSelector selects namespaces by their labels. Default: all but kube-system, which a
	// selector must name by the label kubernetes.io/metadata.name.
	// +optional
	NamespaceSelector *metav1.LabelSelector `json:"namespaceSelector,omitempty"`
	// names are those of the ServiceAccounts in each namespace. Default: default.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	Names []ObjectName `json:"names,omitempty"`
	// serviceAccountSelector selects ServiceAccounts by their labels, in place of names. Labels
	// that only templates set do not count.
	// +optional
	ServiceAccountSelector *metav1.LabelSelector `json:"serviceAccountSelector,omitempty"`
	// create makes the ServiceAccounts of names that are missing. They stay when the template goes.
	// +optional
	Create bool `json:"create,omitempty"`

	// labels are set on each ServiceAccount.
	// +optional
	// +kubebuilder:validation:MaxProperties=32
	// +kubebuilder:validation:XValidation:rule="self.all(k, k.size() <= 317 && k.matches('^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$'))",message="a key is not one of a label"
	// +kubebuilder:validation:XValidation:rule="!self.exists(k, k.matches('^([^/]*[.])?(kubernetes|k8s)[.]io/'))",message="keys under kubernetes.io and k8s.io cannot be set"
	Labels map[string]LabelValue `json:"labels,omitempty"`
	// annotations are set on each ServiceAccount.
	// +optional
	// +kubebuilder:validation:MaxProperties=32
	// +kubebuilder:validation:XValidation:rule="self.all(k, k.size() <= 317 && k.matches('^([a-zA-Z0-9]([-a-zA-Z0-9.]*[a-zA-Z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$'))",message="a key is not one of an annotation"
	// +kubebuilder:validation:XValidation:rule="!self.exists(k, k.matches('^([^/]*[.])?([kK][uU][bB][eE][rR][nN][eE][tT][eE][sS]|[kK]8[sS])[.][iI][oO]/'))",message="keys under kubernetes.io and k8s.io cannot be set"
	Annotations map[string]AnnotationValue `json:"annotations,omitempty"`
	// automountServiceAccountToken says whether pods get a token by default.
	// +optional
	AutomountServiceAccountToken *bool `json:"automountServiceAccountToken,omitempty"`
	// imagePullSecrets are the pull secrets of each ServiceAccount. Those of several templates are
	// united.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=32
	ImagePullSecrets []PullSecret `json:"imagePullSecrets,omitempty"`

	// priority decides between templates that set the same field: the highest wins, among equals the
	// first name.
	// +optional
	// +default=0
	Priority int32 `json:"priority"`
	// force sets fields also where another field manager has set them. Default: such a field is left
	// alone, and the condition Conflict names it.
	// +optional
	Force bool `json:"force,omitempty"`
}

// ObjectName is the name of an object.
//
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=253
// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`
type ObjectName string

// LabelValue is the value of a label.
//
// +kubebuilder:validation:MaxLength=63
// +kubebuilder:validation:Pattern=`^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$`
type LabelValue string

// AnnotationValue is the value of an annotation.
//
// +kubebuilder:validation:MaxLength=4096
type AnnotationValue string

// NamespaceName is the name of a namespace.
//
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=63
// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
type NamespaceName string

// PullSecret is a Secret in the namespace of the ServiceAccount.
type PullSecret struct {
	// +required
	Name ObjectName `json:"name"`
	// copyFrom keeps a copy of another Secret under the name, in every namespace that is selected.
	// Default: the Secret is not looked after. The pull-secret-copy-controller copies.
	// +optional
	CopyFrom *PullSecretSource `json:"copyFrom,omitempty"`
}

// PullSecretSource is a Secret of type kubernetes.io/dockerconfigjson or kubernetes.io/dockercfg.
type PullSecretSource struct {
	// namespace is one of --pull-secret-source-namespaces.
	// +required
	Namespace NamespaceName `json:"namespace"`
	// +required
	Name ObjectName `json:"name"`
}

// Types of conditions.
const (
	// ConditionReady is true if every selected ServiceAccount looks as the template says, except for
	// fields that another field manager or a template of higher priority has set.
	ConditionReady = "Ready"
	// ConditionConflict is true if fields are not set, because another field manager or a template of
	// the same priority has set them.
	ConditionConflict = "Conflict"
	// ConditionCopiesReady is true if every copy of a pull secret that the template names is there. A
	// template that names none does not have it.
	ConditionCopiesReady = "CopiesReady"
)

// ServiceAccountTemplateStatus is written at most once in 10 s.
type ServiceAccountTemplateStatus struct {
	// observedGeneration is the generation of the spec that the rest is about.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// namespaces is the number of namespaces that are selected.
	// +optional
	Namespaces *int32 `json:"namespaces,omitempty"`
	// serviceAccounts is the number of ServiceAccounts that are selected.
	// +optional
	ServiceAccounts *int32 `json:"serviceAccounts,omitempty"`
	// conditions are Ready, Conflict and CopiesReady.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// ServiceAccountTemplateList is a list of templates.
//
// +kubebuilder:object:root=true
type ServiceAccountTemplateList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []ServiceAccountTemplate `json:"items"`
}
