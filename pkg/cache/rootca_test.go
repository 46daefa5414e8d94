package cache

import (
	"crypto/sha256"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

func changed(change func(*corev1.ConfigMap)) *corev1.ConfigMap {
	cm := testkit.ConfigMap("team/" + api.RootCAConfigMap)
	change(cm)
	return cm
}

func TestNewRootCA(t *testing.T) {
	cases := map[string]struct {
		in   *corev1.ConfigMap
		want RootCA // less its ObjectMeta
	}{
		"one that is right": {
			in:   testkit.ConfigMap("team/"+api.RootCAConfigMap, testkit.WithData("ca.crt", "a CA"), testkit.WithAnnotation(DescriptionAnnotation, "for users")),
			want: RootCA{HasCA: true, CASum: sha256.Sum256([]byte("a CA")), Described: true, Plain: true},
		},
		"an empty one": {
			in:   testkit.ConfigMap("team/" + api.RootCAConfigMap),
			want: RootCA{CASum: sha256.Sum256(nil), Plain: true},
		},
		"an empty CA and an empty description": {
			in:   testkit.ConfigMap("team/"+api.RootCAConfigMap, testkit.WithData("ca.crt", ""), testkit.WithAnnotation(DescriptionAnnotation, "")),
			want: RootCA{HasCA: true, CASum: sha256.Sum256(nil), Plain: true},
		},
		"other keys, in order": {
			in:   testkit.ConfigMap("team/"+api.RootCAConfigMap, testkit.WithData("z", "1"), testkit.WithData("ca.crt", "a CA"), testkit.WithData("a", "2")),
			want: RootCA{HasCA: true, CASum: sha256.Sum256([]byte("a CA")), OtherKeys: []string{"a", "z"}, Plain: true},
		},
		"labels and a deletion in progress": {
			in:   testkit.ConfigMap("team/"+api.RootCAConfigMap, testkit.WithLabel("app", "ci"), testkit.Deleting(), testkit.WithManagedFields()),
			want: RootCA{CASum: sha256.Sum256(nil)}, // it has a finalizer
		},
		"labels": {
			in:   testkit.ConfigMap("team/"+api.RootCAConfigMap, testkit.WithLabel("app", "ci"), testkit.WithManagedFields()),
			want: RootCA{CASum: sha256.Sum256(nil), Plain: true},
		},
		"an annotation that is not kept": {
			in:   testkit.ConfigMap("team/"+api.RootCAConfigMap, testkit.WithAnnotation("mine", "yes")),
			want: RootCA{CASum: sha256.Sum256(nil)},
		},
		"a finalizer":             {in: changed(func(cm *corev1.ConfigMap) { cm.Finalizers = []string{"example.com/mine"} }), want: RootCA{CASum: sha256.Sum256(nil)}},
		"an owner":                {in: changed(func(cm *corev1.ConfigMap) { cm.OwnerReferences = []metav1.OwnerReference{{Name: "mine"}} }), want: RootCA{CASum: sha256.Sum256(nil)}},
		"bytes":                   {in: changed(func(cm *corev1.ConfigMap) { cm.BinaryData = map[string][]byte{"mine": {1}} }), want: RootCA{CASum: sha256.Sum256(nil)}},
		"a generated name":        {in: changed(func(cm *corev1.ConfigMap) { cm.GenerateName = "mine-" }), want: RootCA{CASum: sha256.Sum256(nil)}},
		"time to go":              {in: changed(func(cm *corev1.ConfigMap) { cm.DeletionGracePeriodSeconds = new(int64(1)) }), want: RootCA{CASum: sha256.Sum256(nil)}},
		"not immutable, in words": {in: changed(func(cm *corev1.ConfigMap) { cm.Immutable = new(false) }), want: RootCA{CASum: sha256.Sum256(nil)}},
		"immutable":               {in: changed(func(cm *corev1.ConfigMap) { cm.Immutable = new(true) }), want: RootCA{CASum: sha256.Sum256(nil)}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			tc.want.ObjectMeta = reducedMeta(tc.in)
			got := NewRootCA(tc.in)
			if diff := cmp.Diff(&tc.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if holds(reflect.ValueOf(got), "a CA") {
				t.Error("the CA itself is kept")
			}
		})
	}
}
