package accounttemplate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"

	"github.com/sakeeper/sakeeper/pkg/api/v1alpha1"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane/controlplanetest"
)

func TestWithARealAPIServer(t *testing.T) {
	p := newControlPlane(t)
	p.testMissingDefinition(t) // it leaves the definition there
	t.Run("a bad template is refused", p.testValidation)
	t.Run("one write sets the fields, none follows a restart, and what is not said is given back", p.testLife)
	t.Run("what changed while no controller ran is given back", p.testChangesMeanwhile)
	t.Run("what another manager set stays, and is named, until the template says force", p.testConflict)
	t.Run("what admission has set is owned, and given back", p.testAdmission)
	t.Run("missing accounts are created", p.testCreate)
	t.Run("only selected namespaces and accounts are written to", p.testSelection)
	t.Run("nothing is given back while a selector cannot be parsed", p.testInvalidSelector)
	t.Run("an account that the API server refuses is named", p.testRefused)
	t.Run("a definition that is deleted takes its templates along", p.testDeletedDefinition) // the last
}

func (p controlPlane) testLife(t *testing.T) {
	namespace := p.newNamespace(t)
	r := p.runReady(t)
	mark := p.mark(t)
	p.create(t, "life", hardened(namespace))
	p.expectLooks(t, namespace, "default", allSet)
	status := p.expectCondition(t, "life", v1alpha1.ConditionReady, metav1.ConditionTrue, "")
	if *status.Namespaces != 1 || *status.ServiceAccounts != 1 || meta.IsStatusConditionTrue(status.Conditions, v1alpha1.ConditionConflict) {
		t.Errorf("status %+v", status)
	}
	want := []string{"patch " + namespace + "/default"}
	if diff := cmp.Diff(want, p.writes(t, mark)); diff != "" {
		t.Errorf("writes (-want +got):\n%s", diff)
	}
	r.stop()

	mark = p.mark(t)
	r = p.runReady(t)
	if writes := p.writes(t, mark); len(writes) > 0 {
		t.Errorf("writes after a restart: %v", writes)
	}
	p.change(t, "life", `{"labels":null,"automountServiceAccountToken":true}`)
	p.expectLooks(t, namespace, "default", "labels[] annotations[] true [registry]")
	p.remove(t, "life")
	p.expectLooks(t, namespace, "default", plain)
	account, err := p.Client.CoreV1().ServiceAccounts(namespace).Get(t.Context(), "default", metav1.GetOptions{})
	must(t, err)
	for _, entry := range account.ManagedFields {
		if entry.Manager == "sakeeper-account-templates" {
			t.Errorf("the field manager still owns %s", entry.FieldsV1.GetRawBytes())
		}
	}
	r.stop()
}

func (p controlPlane) testChangesMeanwhile(t *testing.T) {
	first, second := p.newNamespace(t), p.newNamespace(t)
	r := p.runReady(t)
	p.create(t, "goes", hardened(first))
	p.create(t, "stays", hardened(second))
	p.expectLooks(t, first, "default", allSet)
	p.expectLooks(t, second, "default", allSet)
	r.stop()
	p.remove(t, "goes")
	p.change(t, "stays", `{"imagePullSecrets":[{"name":"other"}]}`)
	p.runReady(t)
	p.expectLooks(t, first, "default", plain)
	p.expectLooks(t, second, "default", "labels[hardened:true] annotations[] false [other]")
}

func (p controlPlane) testConflict(t *testing.T) {
	namespace := p.newNamespace(t)
	p.newAccount(t, &corev1.ServiceAccount{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "builder"}, ImagePullSecrets: []corev1.LocalObjectReference{{Name: "theirs"}},
	})
	r := p.runReady(t)
	spec := hardened(namespace)
	spec.Names = []v1alpha1.ObjectName{"builder"}
	p.create(t, "conflict", spec)
	p.expectLooks(t, namespace, "builder", oneList)
	const told = `/builder: imagePullSecrets is set by the field manager "user"`
	p.expectCondition(t, "conflict", v1alpha1.ConditionConflict, metav1.ConditionTrue, namespace+told)
	p.expectCondition(t, "conflict", v1alpha1.ConditionReady, metav1.ConditionTrue, "")
	controlplanetest.Eventually(t, "the event", func(context.Context) error {
		for _, event := range testkit.Events(r.events) {
			if strings.Contains(event, "Warning TemplateConflict") && strings.Contains(event, told) {
				return nil
			}
		}
		return errors.New("no event")
	})

	p.change(t, "conflict", `{"force":true}`)
	p.expectLooks(t, namespace, "builder", allSet)
	p.expectCondition(t, "conflict", v1alpha1.ConditionConflict, metav1.ConditionFalse, "")

	// Another manager takes the field by an apply with force. It may go back to the template only
	// with force, which the template does not say any more.
	p.change(t, "conflict", `{"force":false}`)
	p.expectCondition(t, "conflict", v1alpha1.ConditionConflict, metav1.ConditionFalse, "")
	theirs := applycorev1.ServiceAccount("builder", namespace).WithImagePullSecrets(applycorev1.LocalObjectReference().WithName("theirs"))
	_, err := p.Client.CoreV1().ServiceAccounts(namespace).Apply(t.Context(), theirs, metav1.ApplyOptions{FieldManager: "gitops", Force: true})
	must(t, err)
	p.expectCondition(t, "conflict", v1alpha1.ConditionConflict, metav1.ConditionTrue, `the field manager "gitops"`)
	p.remove(t, "conflict")
	p.expectLooks(t, namespace, "builder", "labels[] annotations[] unset [theirs]")
}

// testAdmission: what a mutating policy set at the creation of an account has no field manager.
func (p controlPlane) testAdmission(t *testing.T) {
	must(t, p.Install(t.Context(), "policies/account-defaults"))
	namespace := p.newNamespace(t)
	_, err := p.Client.CoreV1().Namespaces().Patch(t.Context(), namespace, types.MergePatchType, []byte(`{"metadata":{"labels":{"sakeeper.io/account-defaults":"enabled"}}}`), metav1.PatchOptions{})
	must(t, err)
	const set = "labels[] annotations[] false []"
	controlplanetest.Eventually(t, "the policy sets automount", func(ctx context.Context) error {
		accounts := p.Client.CoreV1().ServiceAccounts(namespace)
		if err := accounts.Delete(ctx, "default", metav1.DeleteOptions{}); err != nil {
			return err
		}
		if _, err := accounts.Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, metav1.CreateOptions{}); err != nil {
			return err
		}
		got, err := p.looks(ctx, namespace, "default")
		if err == nil && got != set {
			err = errors.New("the account looks like " + got)
		}
		return err
	})
	p.runReady(t)
	mark := p.mark(t)
	p.create(t, "admission", v1alpha1.ServiceAccountTemplateSpec{NamespaceSelector: in(namespace), AutomountServiceAccountToken: new(false)})
	p.expectCondition(t, "admission", v1alpha1.ConditionReady, metav1.ConditionTrue, "")
	p.expectLooks(t, namespace, "default", set)
	if diff := cmp.Diff([]string{"patch " + namespace + "/default"}, p.writes(t, mark)); diff != "" {
		t.Errorf("writes (-want +got):\n%s", diff)
	}
	p.remove(t, "admission")
	p.expectLooks(t, namespace, "default", plain)
}

func (p controlPlane) testCreate(t *testing.T) {
	namespace := p.newNamespace(t)
	p.runReady(t)
	spec := hardened(namespace)
	spec.Names, spec.Create = []v1alpha1.ObjectName{"deployer", "default"}, true
	mark := p.mark(t)
	p.create(t, "create", spec)
	p.expectLooks(t, namespace, "deployer", allSet)
	p.expectLooks(t, namespace, "default", allSet)
	must(t, p.Client.CoreV1().ServiceAccounts(namespace).Delete(t.Context(), "deployer", metav1.DeleteOptions{}))
	p.expectLooks(t, namespace, "deployer", allSet)
	got := p.writes(t, mark)
	slices.Sort(got)
	if diff := cmp.Diff([]string{"patch " + namespace + "/default", "patch " + namespace + "/deployer", "patch " + namespace + "/deployer"}, got); diff != "" {
		t.Errorf("writes (-want +got):\n%s", diff)
	}
	p.remove(t, "create")
	p.expectLooks(t, namespace, "deployer", plain)
}

func (p controlPlane) testSelection(t *testing.T) {
	selected, other, terminating := p.newNamespace(t), p.newNamespace(t), p.newNamespace(t)
	p.newAccount(t, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: selected, Name: "labelled", Labels: map[string]string{"tier": "web"}}})
	p.newAccount(t, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: "default"}})
	// It stays, because nothing removes its finalizer here.
	must(t, p.Client.CoreV1().Namespaces().Delete(t.Context(), terminating, metav1.DeleteOptions{}))
	p.runReady(t)
	spec := hardened(selected, terminating)
	spec.NamespaceSelector, spec.ServiceAccountSelector = in(selected, terminating), &metav1.LabelSelector{MatchLabels: map[string]string{"tier": "web"}}
	p.create(t, "selected-by-label", spec)
	everywhere := v1alpha1.ServiceAccountTemplateSpec{Annotations: map[string]v1alpha1.AnnotationValue{"example.com/seen": "yes"}, Priority: -1}
	p.create(t, "everywhere", everywhere)

	p.expectLooks(t, selected, "labelled", "labels[hardened:true tier:web] annotations[] false [registry]")
	const seen = "labels[] annotations[example.com/seen:yes] unset []"
	p.expectLooks(t, selected, "default", seen)
	p.expectLooks(t, other, "default", seen)
	p.expectCondition(t, "everywhere", v1alpha1.ConditionReady, metav1.ConditionTrue, "")
	p.expectLooks(t, terminating, "default", plain)
	p.expectLooks(t, metav1.NamespaceSystem, "default", plain)
	p.change(t, "everywhere", `{"namespaceSelector":{"matchExpressions":[{"key":"kubernetes.io/metadata.name","operator":"In","values":["kube-system"]}]}}`)
	p.expectLooks(t, metav1.NamespaceSystem, "default", seen)
	p.expectLooks(t, other, "default", plain)

	// A namespace that gets its label later.
	_, err := p.Client.CoreV1().Namespaces().Patch(t.Context(), other, types.MergePatchType, []byte(`{"metadata":{"labels":{"test":"`+selected+`"}}}`), metav1.PatchOptions{})
	must(t, err)
	p.newAccount(t, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: other, Name: "labelled", Labels: map[string]string{"tier": "web"}}})
	p.expectLooks(t, other, "labelled", "labels[hardened:true tier:web] annotations[] false [registry]")
}

func (p controlPlane) testInvalidSelector(t *testing.T) {
	first, second := p.newNamespace(t), p.newNamespace(t)
	p.runReady(t)
	p.create(t, "invalid", hardened(first))
	p.create(t, "valid", hardened(second))
	p.expectLooks(t, first, "default", allSet)
	p.expectLooks(t, second, "default", allSet)
	p.change(t, "invalid", `{"namespaceSelector":{"matchExpressions":[{"key":"test","operator":"Like","values":["x"]}]}}`)
	p.expectCondition(t, "invalid", v1alpha1.ConditionReady, metav1.ConditionFalse, `"Like" is not a valid label selector operator`)
	p.change(t, "valid", `{"labels":{"hardened":"more"}}`)
	p.expectLooks(t, second, "default", "labels[hardened:more] annotations[] false [registry]")
	p.expectLooks(t, first, "default", allSet)
	p.remove(t, "invalid")
	p.expectLooks(t, first, "default", plain)
}

func (p controlPlane) testRefused(t *testing.T) {
	namespace := p.newNamespace(t)
	p.runReady(t)
	spec := hardened(namespace)
	// Each is allowed, but all of them are more than an object may have.
	spec.Annotations = map[string]v1alpha1.AnnotationValue{}
	p.create(t, "refused", spec)
	p.expectLooks(t, namespace, "default", allSet)
	for i := range 3 {
		extra := hardened(namespace)
		extra.Annotations = map[string]v1alpha1.AnnotationValue{}
		for j := range 32 {
			extra.Annotations[fmt.Sprintf("example.com/a%d-%d", i, j)] = v1alpha1.AnnotationValue(strings.Repeat("x", 4000))
		}
		p.create(t, fmt.Sprint("refused-", i), extra)
	}
	p.expectCondition(t, "refused", v1alpha1.ConditionReady, metav1.ConditionFalse, namespace+"/default: apply templates to service account "+namespace+"/default: ")
	for i := range 3 {
		p.remove(t, fmt.Sprint("refused-", i))
	}
	p.expectCondition(t, "refused", v1alpha1.ConditionReady, metav1.ConditionTrue, "")
	p.expectLooks(t, namespace, "default", allSet)
}
