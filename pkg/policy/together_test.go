package policy_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/api/v1alpha1"
	"github.com/sakeeper/sakeeper/pkg/podadmission/secretrefs"
	"github.com/sakeeper/sakeeper/pkg/policy"
)

// TestAllPoliciesTogether: all of them, and another policy that writes the volume that token-seconds changes, are
// created anew again and again, each time in another order and with other UIDs, because API servers evaluate policies
// in an order that no user can choose. The results are the same.
func TestAllPoliciesTogether(t *testing.T) {
	needMutatingPolicies(t)
	want := map[string]string{
		"a new account":               "automountServiceAccountToken: true, imagePullSecrets: [{registry}]", // not false, of account-defaults
		"a pod with nothing":          "tokens of [1200] s",                                                 // 3607 would be refused
		"a pod with a listed Secret":  "tokens of [1200] s",
		"a pod with another":          `403 spec.volumes[0].csi.nodePublishSecretRef.name="x" is not allowed because service account robot does not reference that secret`,
		"a pod with a longer token":   "403 a token of 1201 s is not allowed in namespace %s, where 20m is the longest lifetime",
		"a longer token":              "403 a token of 1201 s is not allowed in namespace %s, where 20m is the longest lifetime",
		"a token that is short":       "granted",
		"a Secret that never expires": "403 the token of a Secret of type kubernetes.io/service-account-token never expires, and such Secrets are not allowed in this namespace: it has no label sakeeper.io/token-secrets=allowed",
	}
	for round := range 20 {
		t.Run(fmt.Sprint("round ", round), func(t *testing.T) {
			t.Parallel()
			namespace := fmt.Sprint("together-", round)
			newNamespace(t, namespace, map[string]string{api.MaxTokenLifetimeAnnotation: "20m"})
			_, err := server.client.CoreV1().ServiceAccounts(namespace).Create(t.Context(), robot(), metav1.CreateOptions{})
			must(t, err)
			newAccount(t, namespace, "plain", nil)
			newTemplate(t, namespace, v1alpha1.ServiceAccountTemplateSpec{
				Names: []v1alpha1.ObjectName{"new"}, AutomountServiceAccountToken: new(true), ImagePullSecrets: []v1alpha1.PullSecret{{Name: "registry"}},
			})
			installAll(t, namespace, uint64(round))
			want := formatted(want, namespace)
			eventually(t, "the results", func(ctx context.Context) error {
				if diff := cmp.Diff(want, results(ctx, t, namespace)); diff != "" {
					return errors.New("(-want +got):\n" + diff)
				}
				return nil
			})
			for range 3 {
				if diff := cmp.Diff(want, results(t.Context(), t, namespace)); diff != "" {
					t.Errorf("again (-want +got):\n%s", diff)
				}
			}
		})
	}
}

func formatted(texts map[string]string, namespace string) map[string]string {
	all := map[string]string{}
	for name, text := range texts {
		if name == "a longer token" || name == "a pod with a longer token" {
			text = fmt.Sprintf(text, namespace)
		}
		all[name] = text
	}
	return all
}

// installAll installs all policies and the writer of volumes in that namespace, in the order of the seed.
func installAll(t *testing.T, namespace string, seed uint64) {
	t.Helper()
	s := policy.Defaults()
	s.AccountDefaults.NamespaceSelector = ""
	s.TokenSeconds.Seconds, s.TokenLimits.SecretsMode = 1200, policy.Deny
	steps := []func(){func() { installVolumeWriter(t, namespace) }}
	for _, name := range policy.Names() {
		objects, err := policy.Generate([]string{name}, policy.Newest(), s)
		must(t, err)
		for _, object := range objects {
			steps = append(steps, func() { create(t, namespace, object) })
		}
	}
	rand.New(rand.NewPCG(1, seed)).Shuffle(len(steps), func(i, j int) { steps[i], steps[j] = steps[j], steps[i] })
	for _, step := range steps {
		step()
	}
}

// results are what the API server says to requests without effect.
func results(ctx context.Context, t *testing.T, namespace string) map[string]string {
	t.Helper()
	core := server.client.CoreV1()
	or := func(err error, text func() string) string {
		if err == nil {
			return text()
		}
		code, message := refusal(err)
		return fmt.Sprint(code, " ", message)
	}
	aPod := func(pod *corev1.Pod) string {
		created, err := core.Pods(namespace).Create(ctx, pod, dryRun)
		return or(err, func() string { return fmt.Sprintf("tokens of %v s", defaultLifetimes(created)) })
	}
	longer := tokenPod("robot", token(1201, ""))
	account, errAccount := core.ServiceAccounts(namespace).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "new"}}, dryRun)
	_, errSecret := core.Secrets(namespace).Create(ctx, tokenSecret(), dryRun)
	granted := func() string { return "granted" }
	return map[string]string{
		"a new account": or(errAccount, func() string {
			if account.AutomountServiceAccountToken == nil {
				return "nothing is set"
			}
			return fmt.Sprint("automountServiceAccountToken: ", *account.AutomountServiceAccountToken, ", imagePullSecrets: ", account.ImagePullSecrets)
		}),
		"a pod with nothing":          aPod(newPod("robot", nil)),
		"a pod with a listed Secret":  aPod(newPod("robot", func(p *corev1.Pod) { p.Spec.Containers[0].Env = []corev1.EnvVar{variable("V", "listed")} })),
		"a pod with another":          aPod(newPod("robot", volume(secretrefs.CSI, "x"))),
		"a pod with a longer token":   aPod(longer),
		"a longer token":              or(request{account: "robot", seconds: 1201}.send(t, ctx, namespace), granted),
		"a token that is short":       or(request{account: "robot", seconds: 1200}.send(t, ctx, namespace), granted),
		"a Secret that never expires": or(errSecret, granted),
	}
}

// defaultLifetimes are those of the tokens in the volumes that no user wrote.
func defaultLifetimes(pod *corev1.Pod) []int64 {
	var all []int64
	for _, volume := range pod.Spec.Volumes {
		if volume.Projected == nil || volume.Name == "own" {
			continue
		}
		for _, source := range volume.Projected.Sources {
			if source.ServiceAccountToken != nil {
				all = append(all, *source.ServiceAccountToken.ExpirationSeconds)
			}
		}
	}
	return all
}
