package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/controllers/rootca"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

// expectRootCA waits until kube-root-ca.crt has only ca, and a description.
func expectRootCA(t *testing.T, client kubernetes.Interface, namespace string, ca []byte) *corev1.ConfigMap {
	t.Helper()
	var cm *corev1.ConfigMap
	eventually(t, "config map "+namespace+"/"+api.RootCAConfigMap, func(ctx context.Context) (err error) {
		cm, err = client.CoreV1().ConfigMaps(namespace).Get(ctx, api.RootCAConfigMap, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if diff := cmp.Diff(map[string]string{"ca.crt": string(ca)}, cm.Data); diff != "" {
			return fmt.Errorf("data (-want +got):\n%s", diff)
		}
		if cm.Annotations[cache.DescriptionAnnotation] == "" {
			return errors.New("no description")
		}
		return nil
	})
	return cm
}

func TestRootCAIsRepaired(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		change   func(*corev1.ConfigMap)
		want     func(*testing.T, *corev1.ConfigMap)
		wantVerb string // empty: an update, because the cache has what the change added
	}{
		"another CA":                     {change: func(cm *corev1.ConfigMap) { cm.Data["ca.crt"] = "wrong" }},
		"no CA":                          {change: func(cm *corev1.ConfigMap) { cm.Data = nil }},
		"another key beside the CA":      {change: func(cm *corev1.ConfigMap) { cm.Data["more"] = "x" }},
		"the description was taken away": {change: func(cm *corev1.ConfigMap) { cm.Annotations = nil }},
		"a user's label and annotation stay": {
			change: func(cm *corev1.ConfigMap) {
				cm.Data["ca.crt"] = "wrong"
				cm.Labels = map[string]string{"mine": "yes"}
				cm.Annotations["mine"] = "yes"
			},
			want: func(t *testing.T, cm *corev1.ConfigMap) {
				t.Helper()
				if cm.Labels["mine"] != "yes" || cm.Annotations["mine"] != "yes" {
					t.Errorf("label or annotation was lost: %+v", cm.ObjectMeta)
				}
			},
			wantVerb: "patch",
		},
		"a user's label alone stays": {
			change: func(cm *corev1.ConfigMap) {
				cm.Data["ca.crt"] = "wrong"
				cm.Labels = map[string]string{"mine": "yes"}
			},
			want: func(t *testing.T, cm *corev1.ConfigMap) {
				t.Helper()
				if cm.Labels["mine"] != "yes" {
					t.Errorf("the label was lost: %+v", cm.ObjectMeta)
				}
				// The user still owns the field: an update without managedFields keeps them.
				owns := func(f metav1.ManagedFieldsEntry) bool {
					return !strings.HasPrefix(f.Manager, "sakeeper") && f.FieldsV1 != nil && strings.Contains(f.FieldsV1.String(), "f:mine")
				}
				if !slices.ContainsFunc(cm.ManagedFields, owns) {
					t.Errorf("whose the label is was lost: %v", cm.ManagedFields)
				}
			},
		},
		"the description is set together with the data, as in-tree": {
			change: func(cm *corev1.ConfigMap) {
				cm.Data["ca.crt"] = "wrong"
				cm.Annotations[cache.DescriptionAnnotation] = "mine"
			},
			want: func(t *testing.T, cm *corev1.ConfigMap) {
				t.Helper()
				if got := cm.Annotations[cache.DescriptionAnnotation]; got != rootca.Description {
					t.Errorf("description = %q", got)
				}
			},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			namespace := newNamespace(t, shared.client)
			cm := expectRootCA(t, shared.client, namespace, shared.cp.Admin.CAData)
			tt.change(cm)
			mark := mustMark(t, shared.cp)
			changed, err := shared.client.CoreV1().ConfigMaps(namespace).Update(t.Context(), cm, metav1.UpdateOptions{})
			must(t, err)
			got := expectRootCA(t, shared.client, namespace, shared.cp.Admin.CAData)
			if got.UID != changed.UID {
				t.Error("it was replaced, not repaired")
			}
			if tt.want != nil {
				tt.want(t, got)
			}
			if tt.wantVerb == "" {
				tt.wantVerb = "update"
			}
			if diff := cmp.Diff(map[string]int{tt.wantVerb + " configmaps": 1}, controlplane.Count(requests(t, shared.cp, mark, namespace))); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDeletedRootCAComesBack(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t, shared.client)
	old := expectRootCA(t, shared.client, namespace, shared.cp.Admin.CAData)
	must(t, shared.client.CoreV1().ConfigMaps(namespace).Delete(t.Context(), old.Name, metav1.DeleteOptions{}))
	if got := expectRootCA(t, shared.client, namespace, shared.cp.Admin.CAData); got.UID == old.UID {
		t.Error("it was never gone")
	}
}
