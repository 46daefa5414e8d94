package cache_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

func TestNewAccount(t *testing.T) {
	entry := func(manager string, operation metav1.ManagedFieldsOperationType, fields string) metav1.ManagedFieldsEntry {
		return metav1.ManagedFieldsEntry{Manager: manager, Operation: operation, FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(fields)}
	}
	const manager, apply, update = "sakeeper-account-templates", metav1.ManagedFieldsOperationApply, metav1.ManagedFieldsOperationUpdate
	account := testkit.ServiceAccount("team/default", testkit.WithLabel("app", "web"), testkit.WithLabel("team", "blue"), testkit.WithAnnotation("note", "x"),
		testkit.WithAnnotation("kubectl.kubernetes.io/last-applied-configuration", "a copy"), testkit.WithAnnotation("kubernetes.io/enforce-mountable-secrets", "true"),
		testkit.WithReferences("token"))
	account.AutomountServiceAccountToken = new(false)
	account.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "b"}, {Name: "a"}}
	state := func(value string, ours bool, other string) cache.FieldState {
		return cache.FieldState{Present: true, Value: value, Ours: ours, Other: other}
	}
	label := func(key string) cache.Field { return cache.Field{Name: cache.FieldLabel, Key: key} }
	note, automount, secrets := cache.Field{Name: cache.FieldAnnotation, Key: "note"}, cache.Field{Name: cache.FieldAutomount}, cache.Field{Name: cache.FieldPullSecrets}

	cases := map[string]struct {
		in             []metav1.ManagedFieldsEntry
		want           map[cache.Field]cache.FieldState
		wantSelectable map[string]string
	}{
		"without managedFields, another manager has set everything": {
			want: map[cache.Field]cache.FieldState{
				label("app"): state("web", false, "before-first-apply"), label("team"): state("blue", false, "before-first-apply"), note: state("x", false, "before-first-apply"),
				automount: state("false", false, "before-first-apply"), secrets: state("b,a", false, "before-first-apply"),
			},
			wantSelectable: map[string]string{"app": "web", "team": "blue"},
		},
		"owners": {
			in: []metav1.ManagedFieldsEntry{
				entry(manager, apply, `{"f:metadata":{"f:labels":{"f:app":{},"f:team":{}},"f:annotations":{"f:note":{}}},"f:automountServiceAccountToken":{}}`),
				entry("zoe", update, `{"f:metadata":{"f:labels":{".":{},"f:app":{}}},"f:imagePullSecrets":{}}`),
				entry("bob", update, `{"f:metadata":{"f:annotations":{".":{},"f:kubernetes.io/enforce-mountable-secrets":{}}},"f:imagePullSecrets":{},"f:secrets":{}}`),
			},
			want: map[cache.Field]cache.FieldState{
				label("app"): state("web", true, "zoe"), label("team"): state("blue", true, ""), note: state("x", true, ""),
				automount: state("false", true, ""), secrets: state("b,a", false, "bob"),
			},
			wantSelectable: map[string]string{"app": "web"},
		},
		"an update under the name of our manager is not ours": {
			in: []metav1.ManagedFieldsEntry{entry(manager, update, `{"f:automountServiceAccountToken":{}}`)},
			want: map[cache.Field]cache.FieldState{
				label("app"): state("web", false, ""), label("team"): state("blue", false, ""), note: state("x", false, ""),
				automount: state("false", false, manager), secrets: state("b,a", false, ""),
			},
			wantSelectable: map[string]string{"app": "web", "team": "blue"},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			in := account.DeepCopy()
			in.ManagedFields = tc.in
			got := cache.NewAccount(in)
			if diff := cmp.Diff(tc.want, got.Fields) + cmp.Diff(tc.wantSelectable, got.SelectableLabels()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if got.Labels != nil || got.Annotations != nil || got.ManagedFields != nil || got.UID != in.UID || got.ResourceVersion != in.ResourceVersion {
				t.Errorf("metadata %+v", got.ObjectMeta)
			}
		})
	}
}
