package cache_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/pkg/cache"
)

func TestNewPullSecret(t *testing.T) {
	entry := func(manager, fields string) metav1.ManagedFieldsEntry {
		return metav1.ManagedFieldsEntry{Manager: manager, Operation: metav1.ManagedFieldsOperationUpdate, FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(fields)}
	}
	const ours, json, cfg = "sakeeper-pull-secret-copies", `{"f:data":{".":{},"f:.dockerconfigjson":{}},"f:type":{}}`, `{"f:data":{"f:.dockercfg":{}}}`
	cases := map[string]struct {
		inType corev1.SecretType
		in     []metav1.ManagedFieldsEntry
		want   bool
	}{
		"nobody owns the credentials":                {inType: corev1.SecretTypeDockerConfigJson},
		"we own them":                                {inType: corev1.SecretTypeDockerConfigJson, in: []metav1.ManagedFieldsEntry{entry("user", `{"f:metadata":{}}`), entry(ours, json)}, want: true},
		"another manager does":                       {inType: corev1.SecretTypeDockerConfigJson, in: []metav1.ManagedFieldsEntry{entry(ours, `{"f:metadata":{}}`), entry("user", json)}},
		"both do, so that the value is the same":     {inType: corev1.SecretTypeDockerConfigJson, in: []metav1.ManagedFieldsEntry{entry("user", json), entry(ours, json)}, want: true},
		"we own the key of another type":             {inType: corev1.SecretTypeDockerConfigJson, in: []metav1.ManagedFieldsEntry{entry(ours, cfg)}},
		"we own the key of the old type":             {inType: corev1.SecretTypeDockercfg, in: []metav1.ManagedFieldsEntry{entry(ours, cfg)}, want: true},
		"fields that cannot be read, or that are no": {inType: corev1.SecretTypeDockercfg, in: []metav1.ManagedFieldsEntry{entry(ours, `{"f:data":1}`), {Manager: ours}}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := cache.NewPullSecret(&metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
				Namespace: "team", Name: "registry", UID: "u", ResourceVersion: "7", ManagedFields: tc.in,
				Labels: map[string]string{"sakeeper.io/pull-secret": "copy", "app": "web"},
				Annotations: map[string]string{
					"sakeeper.io/copied-from": "a/b", "sakeeper.io/copied-version": "u/1", "sakeeper.io/keep": "true",
					"kubectl.kubernetes.io/last-applied-configuration": "with the credentials",
				},
			}}, tc.inType)
			want := &cache.PullSecret{
				ObjectMeta: metav1.ObjectMeta{
					Namespace: "team", Name: "registry", UID: "u", ResourceVersion: "7", Labels: map[string]string{"sakeeper.io/pull-secret": "copy"},
					Annotations: map[string]string{"sakeeper.io/copied-from": "a/b", "sakeeper.io/copied-version": "u/1"},
				},
				Type: tc.inType, Owned: tc.want,
			}
			if diff := cmp.Diff(want, got); diff != "" || !got.IsCopy() {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
