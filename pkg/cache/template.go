package cache

import (
	"cmp"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/api/v1alpha1"
)

// Template is a ServiceAccountTemplate without managedFields, with its selectors parsed.
type Template struct {
	v1alpha1.ServiceAccountTemplate

	// Invalid says which selector cannot be parsed. Such a template selects nothing.
	Invalid error

	namespaces, accounts labels.Selector
	kubeSystem           bool // the selector of namespaces names kube-system
}

// NewTemplate parses the selectors of a ServiceAccountTemplate.
func NewTemplate(template *v1alpha1.ServiceAccountTemplate) *Template {
	t := &Template{ServiceAccountTemplate: *template, namespaces: labels.Everything(), kubeSystem: namesKubeSystem(template.Spec.NamespaceSelector)}
	t.ManagedFields = nil
	var err error
	if selector := template.Spec.NamespaceSelector; selector != nil {
		if t.namespaces, err = metav1.LabelSelectorAsSelector(selector); err != nil {
			t.Invalid = fmt.Errorf("namespaceSelector: %w", err)
		}
	}
	if selector := template.Spec.ServiceAccountSelector; selector != nil {
		if t.accounts, err = metav1.LabelSelectorAsSelector(selector); err != nil {
			t.Invalid = fmt.Errorf("serviceAccountSelector: %w", err)
		}
	}
	return t
}

// CompareTemplates orders templates by precedence: the highest priority first, then by name.
func CompareTemplates(a, b *Template) int {
	return cmp.Or(cmp.Compare(b.Spec.Priority, a.Spec.Priority), cmp.Compare(a.Name, b.Name))
}

// namesKubeSystem returns true if a selector has the name of kube-system as a value of its label
// kubernetes.io/metadata.name.
func namesKubeSystem(selector *metav1.LabelSelector) bool {
	return selector != nil && (selector.MatchLabels[corev1.LabelMetadataName] == metav1.NamespaceSystem ||
		slices.ContainsFunc(selector.MatchExpressions, func(r metav1.LabelSelectorRequirement) bool {
			return r.Key == corev1.LabelMetadataName && r.Operator == metav1.LabelSelectorOpIn && slices.Contains(r.Values, metav1.NamespaceSystem)
		}))
}

// SelectsNamespace returns true if the template is for ServiceAccounts in a namespace.
func (t *Template) SelectsNamespace(namespace *corev1.Namespace) bool {
	return t.Invalid == nil && (namespace.Name != metav1.NamespaceSystem || t.kubeSystem) && t.namespaces.Matches(labels.Set(namespace.Labels))
}

// SelectsAccount returns true if the template is for a ServiceAccount with that name and those labels,
// in a namespace that it selects.
func (t *Template) SelectsAccount(name string, accountLabels map[string]string) bool {
	if t.accounts != nil {
		return t.accounts.Matches(labels.Set(accountLabels))
	}
	return slices.Contains(t.Names(), name)
}

// Names are the names of ServiceAccounts, nil if the template selects them by labels.
func (t *Template) Names() []string {
	switch {
	case t.Spec.ServiceAccountSelector != nil:
		return nil
	case len(t.Spec.Names) == 0:
		return []string{api.DefaultServiceAccount}
	}
	var names []string
	for _, name := range t.Spec.Names {
		names = append(names, string(name))
	}
	return names
}
