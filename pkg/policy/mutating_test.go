package policy_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/pkg/policy"
)

func TestAccountDefaults(t *testing.T) {
	needMutatingPolicies(t)
	const namespace = "completed"
	newNamespace(t, namespace, nil)
	s := policy.Defaults()
	s.AccountDefaults = policy.AccountDefaults{
		NoAutomount: true, PullSecrets: []string{"registry", "mirror.example.com"}, Labels: map[string]string{"example.com/team": "it's", "plain": ""},
	}
	if _, err := policy.Generate([]string{policy.AccountDefaultsName}, policy.Newest(), s); err == nil {
		t.Error("a label with an apostrophe is accepted")
	}
	s.AccountDefaults.Labels["example.com/team"] = "a"
	accounts := server.client.CoreV1().ServiceAccounts(namespace)
	install(t, namespace, policy.AccountDefaultsName, s, func(ctx context.Context) error {
		created, err := accounts.Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "probe"}}, dryRun)
		if err == nil && created.AutomountServiceAccountToken == nil {
			err = errors.New("it is not changed")
		}
		return err
	})
	both := []corev1.LocalObjectReference{{Name: "registry"}, {Name: "mirror.example.com"}}
	for name, tc := range map[string]struct{ in, want corev1.ServiceAccount }{
		"nothing is said": {
			want: corev1.ServiceAccount{
				ObjectMeta:                   metav1.ObjectMeta{Labels: map[string]string{"example.com/team": "a", "plain": ""}},
				AutomountServiceAccountToken: new(false), ImagePullSecrets: both,
			},
		},
		"all is said": {
			in: corev1.ServiceAccount{
				ObjectMeta:                   metav1.ObjectMeta{Labels: map[string]string{"example.com/team": "b", "plain": "c"}},
				AutomountServiceAccountToken: new(true), ImagePullSecrets: []corev1.LocalObjectReference{{Name: "own"}},
			},
			want: corev1.ServiceAccount{
				ObjectMeta:                   metav1.ObjectMeta{Labels: map[string]string{"example.com/team": "b", "plain": "c"}},
				AutomountServiceAccountToken: new(true), ImagePullSecrets: []corev1.LocalObjectReference{{Name: "own"}},
			},
		},
		"another label": {
			in: corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"other": "x"}}},
			want: corev1.ServiceAccount{
				ObjectMeta:                   metav1.ObjectMeta{Labels: map[string]string{"example.com/team": "a", "plain": "", "other": "x"}},
				AutomountServiceAccountToken: new(false), ImagePullSecrets: both,
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			tc.in.Name = "account.with-dots"
			got, err := accounts.Create(t.Context(), &tc.in, dryRun)
			must(t, err)
			got.ObjectMeta = metav1.ObjectMeta{Labels: got.Labels}
			if diff := cmp.Diff(&tc.want, got); diff != "" {
				t.Errorf("account (-want +got):\n%s", diff)
			}
		})
	}
}

// installTokenSeconds installs the policy for tokens of 1200 s.
func installTokenSeconds(t *testing.T, namespace string) {
	t.Helper()
	s := policy.Defaults()
	s.TokenSeconds.Seconds = 1200
	install(t, namespace, policy.TokenSecondsName, s, func(ctx context.Context) error {
		return expectSeconds(ctx, namespace, tokenVolumes(token(3607, "")), 1200)
	})
}

// tokenVolumes is a pod with the volume of the in-tree plugin, after one of a user.
func tokenVolumes(tokens ...corev1.ServiceAccountTokenProjection) *corev1.Pod {
	p := tokenPod("default", tokens...)
	p.Spec.Volumes[1].Name = "kube-api-access-abcde"
	own := tokenPod("default", token(3607, "")).Spec.Volumes[1]
	own.Name = "own"
	p.Spec.Volumes = append([]corev1.Volume{own}, p.Spec.Volumes...)
	return p
}

// expectSeconds returns nil if the tokens in volumes of the in-tree plugin have those lifetimes.
func expectSeconds(ctx context.Context, namespace string, pod *corev1.Pod, want ...int64) error {
	created, err := server.client.CoreV1().Pods(namespace).Create(ctx, pod, dryRun)
	if err != nil {
		return err
	}
	if diff := cmp.Diff(want, defaultLifetimes(created)); diff != "" {
		return fmt.Errorf("lifetimes (-want +got):\n%s", diff)
	}
	if len(pod.Spec.Volumes) > 0 && *created.Spec.Volumes[0].Projected.Sources[1].ServiceAccountToken.ExpirationSeconds != 3607 {
		return errors.New("a volume of the user is changed")
	}
	return nil
}

func TestTokenSeconds(t *testing.T) {
	needMutatingPolicies(t)
	const namespace = "seconds"
	newNamespace(t, namespace, nil)
	installTokenSeconds(t, namespace)
	for name, tc := range map[string]struct {
		in   *corev1.Pod
		want []int64
	}{
		"several":          {in: tokenVolumes(token(3607, ""), token(3607, "vault"), token(600, ""), token(3607, "")), want: []int64{1200, 3607, 600, 1200}},
		"no such token":    {in: tokenVolumes(token(600, "")), want: []int64{600}},
		"no volume at all": {in: newPod("default", nil)},
	} {
		t.Run(name, func(t *testing.T) { must(t, expectSeconds(t.Context(), namespace, tc.in, tc.want...)) })
	}
}

// installVolumeWriter installs a policy that gives pods without a volume that of the in-tree plugin.
func installVolumeWriter(t *testing.T, namespace string) {
	t.Helper()
	failure, name := admissionregistrationv1.Fail, "writer"
	create(t, namespace, &admissionregistrationv1.MutatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: admissionregistrationv1.MutatingAdmissionPolicySpec{
			FailurePolicy: &failure, ReinvocationPolicy: admissionregistrationv1.NeverReinvocationPolicy,
			MatchConstraints: &admissionregistrationv1.MatchResources{ResourceRules: []admissionregistrationv1.NamedRuleWithOperations{{
				RuleWithOperations: admissionregistrationv1.RuleWithOperations{
					Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create},
					Rule:       admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}},
				},
			}}},
			MatchConditions: []admissionregistrationv1.MatchCondition{{Name: "no-volume", Expression: "!has(object.spec.volumes)"}},
			Mutations: []admissionregistrationv1.Mutation{{PatchType: admissionregistrationv1.PatchTypeJSONPatch, JSONPatch: &admissionregistrationv1.JSONPatch{
				Expression: `[JSONPatch{op: 'add', path: '/spec/volumes', value: [{'name': dyn('kube-api-access-abcde'), 'projected': dyn({'sources': [{'configMap': dyn({'name': 'a'})}, {'serviceAccountToken': dyn({'path': dyn('token'), 'expirationSeconds': dyn(3607)})}]})}]}]`,
			}}},
		},
	})
	create(t, namespace, &admissionregistrationv1.MutatingAdmissionPolicyBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: admissionregistrationv1.MutatingAdmissionPolicyBindingSpec{PolicyName: name},
	})
}
