package cache

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

func TestNewManagedSecret(t *testing.T) {
	asks := testkit.WithLabel(api.TokenLabel, api.TokenManaged)
	opaque := func(o metav1.Object) { o.(*corev1.Secret).Type = corev1.SecretTypeOpaque }
	immutable := func(value bool) testkit.Option {
		return func(o metav1.Object) { o.(*corev1.Secret).Immutable = &value }
	}
	sum := func(pairs ...string) [32]byte {
		data, keys := map[string][]byte{}, []string{}
		for i := 0; i < len(pairs); i += 2 {
			data[pairs[i]], keys = []byte(pairs[i+1]), append(keys, pairs[i])
		}
		return ContentSum(data, keys)
	}
	cases := map[string]struct {
		in   *corev1.Secret
		want func(in *corev1.Secret) *ManagedSecret
	}{
		"what is about the token, and nothing else": {
			in: testkit.Secret("team/s", opaque, asks, testkit.WithAnnotation(api.ServiceAccountAnnotation, "robot"), testkit.WithAnnotation(api.KeepAnnotation, "true"),
				testkit.WithAnnotation(lastApplied, "eyJ-must-not-be-seen"), testkit.WithData("token", "eyJ-must-not-be-seen"), testkit.WithManagedFields()),
			want: func(in *corev1.Secret) *ManagedSecret {
				meta := reducedMeta(in)
				meta.Annotations = map[string]string{api.ServiceAccountAnnotation: "robot"}
				return &ManagedSecret{ObjectMeta: meta, Type: corev1.SecretTypeOpaque, ContentSum: sum(), OtherKeys: []string{"token"}}
			},
		},
		"a sum of what was filled": {
			in: testkit.Secret("team/s", opaque, asks, testkit.WithAnnotation(api.FilledKeysAnnotation, "token,ca.crt,missing"), immutable(true),
				testkit.WithData("token", "eyJ-must-not-be-seen"), testkit.WithData("ca.crt", "CA"), testkit.WithData("mine", "eyJ-must-not-be-seen"), testkit.WithData("placeholder", "")),
			want: func(in *corev1.Secret) *ManagedSecret {
				meta := reducedMeta(in)
				meta.Annotations = map[string]string{api.FilledKeysAnnotation: "token,ca.crt,missing"}
				return &ManagedSecret{ObjectMeta: meta, Type: corev1.SecretTypeOpaque, Immutable: true, ContentSum: sum("ca.crt", "CA", "token", "eyJ-must-not-be-seen"), OtherKeys: []string{"mine"}}
			},
		},
		"the names of annotations that do not exist": {
			in: testkit.Secret("team/s", asks, testkit.WithAnnotation(api.ProblemAnnotation, "it is bad"), testkit.WithAnnotation("sakeeper.io/lifetme", "eyJ-must-not-be-seen"), testkit.WithAnnotation("sakeeper.io/format", "token"),
				testkit.WithAnnotation(api.KeepAnnotation, "true"), testkit.WithAnnotation("example.com/lifetme", "1h"), testkit.WithAnnotation("sakeeper.io/a", "")),
			want: func(in *corev1.Secret) *ManagedSecret {
				meta := reducedMeta(in)
				meta.Annotations = map[string]string{"sakeeper.io/format": "token", "sakeeper.io/problem": "it is bad"}
				return &ManagedSecret{ObjectMeta: meta, Type: in.Type, ContentSum: sum(), UnknownAnnotations: []string{"sakeeper.io/a", "sakeeper.io/lifetme"}}
			},
		},
		"that it is not immutable": {
			in: testkit.Secret("team/s", asks, immutable(false)),
			want: func(in *corev1.Secret) *ManagedSecret {
				return &ManagedSecret{ObjectMeta: reducedMeta(in), Type: in.Type, ContentSum: sum()}
			},
		},
		"that the label has another value, and nothing else": {
			in: testkit.Secret("team/s", opaque, immutable(true), testkit.WithLabel(api.TokenLabel, "true"), testkit.WithAnnotation(api.ServiceAccountAnnotation, "robot"), testkit.WithAnnotation(api.FilledKeysAnnotation, "token"),
				testkit.WithAnnotation(api.KeepAnnotation, "true"), testkit.WithAnnotation("sakeeper.io/lifetme", "eyJ-must-not-be-seen"), testkit.WithData("token", "eyJ-must-not-be-seen"), testkit.WithManagedFields()),
			want: func(in *corev1.Secret) *ManagedSecret { return &ManagedSecret{ObjectMeta: reducedMeta(in)} },
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := NewManagedSecret(tc.in)
			if diff := cmp.Diff(tc.want(tc.in), got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if strings.Contains(fmt.Sprintf("%+v", *got), "must-not-be-seen") {
				t.Error("a token is kept")
			}
		})
	}
}

func TestContentSumTellsContentsApart(t *testing.T) {
	keys := []string{"a", "b", "c"}
	seen := map[[32]byte]string{}
	for name, data := range map[string]map[string][]byte{
		"nothing":          nil,
		"an empty value":   {"a": nil},
		"another key":      {"b": nil},
		"a value":          {"a": []byte("x")},
		"it elsewhere":     {"b": []byte("x")},
		"two":              {"a": []byte("x"), "b": []byte("y")},
		"another border":   {"a": []byte("xy"), "b": nil},
		"the other border": {"a": nil, "b": []byte("xy")},
	} {
		sum := ContentSum(data, keys)
		if other, ok := seen[sum]; ok {
			t.Errorf("%s has the sum of %s", name, other)
		}
		seen[sum] = name
	}
	if ContentSum(map[string][]byte{"a": []byte("x"), "mine": nil}, keys) != ContentSum(map[string][]byte{"a": []byte("x")}, keys) {
		t.Error("another key matters")
	}
}

func TestOnlySecretsWithTheLabelAreFetched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset(
			testkit.Secret("team/managed", testkit.WithLabel(api.TokenLabel, api.TokenManaged), testkit.WithAnnotation(api.ServiceAccountAnnotation, "robot")),
			testkit.Secret("team/other", testkit.WithLabel(api.TokenLabel, "other"), testkit.WithAnnotation(api.ServiceAccountAnnotation, "robot")), testkit.Secret("team/plain"))
		informer, err := ManagedSecrets(client)
		mustNil(t, err)
		run(t, map[string]toolscache.SharedIndexInformer{"secrets": informer})
		if diff := cmp.Diff([]string{"team/managed", "team/other"}, slices.Sorted(slices.Values(informer.GetStore().ListKeys()))); diff != "" {
			t.Errorf("cached (-want +got):\n%s", diff)
		}
		of, err := informer.GetTypedIndexer().ByTypedIndex(ByAccount, "team/robot")
		if err != nil || len(of) != 1 {
			t.Errorf("%d secrets of the account (%v)", len(of), err)
		}
		for _, action := range client.Actions() {
			selector := ""
			switch action := action.(type) {
			case clienttesting.ListActionImpl:
				selector = action.ListRestrictions.Labels.String()
			case clienttesting.WatchActionImpl:
				selector = action.WatchRestrictions.Labels.String()
			}
			if selector != "sakeeper.io/token" {
				t.Errorf("%s with selector %q", action.GetVerb(), selector)
			}
		}
	})
}
