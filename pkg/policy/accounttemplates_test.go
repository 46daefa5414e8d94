package policy_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/pkg/api/v1alpha1"
	"github.com/sakeeper/sakeeper/pkg/policy"
)

// pkg/controllers/accounttemplate compares what the policy decides with the controller.

// newTemplate creates a template for a namespace, with the name of the namespace.
func newTemplate(t *testing.T, namespace string, spec v1alpha1.ServiceAccountTemplateSpec) {
	t.Helper()
	spec.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: namespace}}
	newTemplateNamed(t, namespace, spec)
}

func newTemplateNamed(t *testing.T, name string, spec v1alpha1.ServiceAccountTemplateSpec) {
	t.Helper()
	template := v1alpha1.ServiceAccountTemplate{
		TypeMeta: metav1.TypeMeta{APIVersion: "sakeeper.io/v1alpha1", Kind: "ServiceAccountTemplate"}, ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec,
	}
	body, err := json.Marshal(template)
	must(t, err)
	const path = "/apis/sakeeper.io/v1alpha1/serviceaccounttemplates"
	client := server.client.CoreV1().RESTClient()
	eventually(t, "the template "+name, func(ctx context.Context) error { // the definition is new
		return client.Post().AbsPath(path).SetHeader("Content-Type", "application/json").Body(body).Do(ctx).Error()
	})
	t.Cleanup(func() {
		if err := client.Delete().AbsPath(path + "/" + name).Do(context.Background()).Error(); err != nil && !apierrors.IsNotFound(err) {
			t.Error(err)
		}
	})
}

// TestAccountTemplatesOfTheLargestSize: CEL's cost limits are not reached by what the definition allows, and
// not by a hundred templates.
func TestAccountTemplatesOfTheLargestSize(t *testing.T) {
	needMutatingPolicies(t)
	const namespace, templates = "largest", 100
	newNamespace(t, namespace, nil)
	long := func(i, j int) string {
		return strings.Repeat(strings.Repeat("x", 60)+".", 4) + fmt.Sprintf("%03d-%03d", i, j)
	}
	for i := range templates {
		spec := v1alpha1.ServiceAccountTemplateSpec{Priority: int32(i), AutomountServiceAccountToken: new(i%2 == 0), NamespaceSelector: &metav1.LabelSelector{
			MatchLabels:      map[string]string{corev1.LabelMetadataName: namespace},
			MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "other", Operator: metav1.LabelSelectorOpNotIn}},
		}}
		for j := range 1000 {
			spec.NamespaceSelector.MatchExpressions[0].Values = append(spec.NamespaceSelector.MatchExpressions[0].Values, fmt.Sprint(strings.Repeat("v", 60), j%1000))
		}
		for j := range 64 {
			spec.Names = append(spec.Names, v1alpha1.ObjectName(long(j, j)))
		}
		for j := range 32 {
			spec.ImagePullSecrets = append(spec.ImagePullSecrets, v1alpha1.PullSecret{Name: v1alpha1.ObjectName(long(i/50, j))})
		}
		newTemplateNamed(t, fmt.Sprintf("%s-%d", namespace, i), spec)
	}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: long(63, 63)}}
	const all = "automountServiceAccountToken: false, 64 pull secrets"
	install(t, namespace, policy.AccountTemplatesName, policy.Defaults(), func(ctx context.Context) error {
		created, err := server.client.CoreV1().ServiceAccounts(namespace).Create(ctx, account, dryRun)
		if err != nil {
			return err
		}
		if created.AutomountServiceAccountToken == nil {
			return errors.New("it is not changed")
		}
		if diff := cmp.Diff(all, fmt.Sprintf("automountServiceAccountToken: %v, %d pull secrets", *created.AutomountServiceAccountToken, len(created.ImagePullSecrets))); diff != "" {
			return errors.New("(-want +got):\n" + diff)
		}
		return nil
	})
}

// TestAccountTemplatesInKubeSystem: where no namespace is excluded, a template must name kube-system.
func TestAccountTemplatesInKubeSystem(t *testing.T) {
	needMutatingPolicies(t)
	s := policy.Defaults()
	s.ExcludedNamespaces = nil
	named := func(operator metav1.LabelSelectorOperator, values ...string) *metav1.LabelSelector {
		return &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: corev1.LabelMetadataName, Operator: operator, Values: values}}}
	}
	for secret, selector := range map[string]*metav1.LabelSelector{
		"none": nil, "empty": {}, "not-in": named(metav1.LabelSelectorOpNotIn, "other"), "exists": named(metav1.LabelSelectorOpExists),
		"in": named(metav1.LabelSelectorOpIn, "other", metav1.NamespaceSystem), "label": {MatchLabels: map[string]string{corev1.LabelMetadataName: metav1.NamespaceSystem}},
	} {
		newTemplateNamed(t, "kube-system-"+secret, v1alpha1.ServiceAccountTemplateSpec{
			NamespaceSelector: selector, Names: []v1alpha1.ObjectName{"in-kube-system"}, ImagePullSecrets: []v1alpha1.PullSecret{{Name: v1alpha1.ObjectName(secret)}},
		})
	}
	install(t, metav1.NamespaceSystem, policy.AccountTemplatesName, s, func(ctx context.Context) error {
		created, err := server.client.CoreV1().ServiceAccounts(metav1.NamespaceSystem).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "in-kube-system"}}, dryRun)
		if err != nil {
			return err
		}
		if diff := cmp.Diff([]corev1.LocalObjectReference{{Name: "in"}, {Name: "label"}}, created.ImagePullSecrets); diff != "" {
			return errors.New("(-want +got):\n" + diff)
		}
		return nil
	})
}
