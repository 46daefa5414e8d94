package accounttemplate

import (
	"math/rand/v2"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/api/v1alpha1"
)

func pick[T any](random *rand.Rand, all ...T) T { return all[random.IntN(len(all))] }

func randomSpec(random *rand.Rand, set string, s *v1alpha1.ServiceAccountTemplateSpec) {
	s.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"set": set}}
	if random.IntN(3) == 0 {
		s.NamespaceSelector.MatchExpressions = randomExpressions(random, "tier")
	}
	switch random.IntN(7) {
	case 0, 1:
		s.Names = []v1alpha1.ObjectName{"builder", "default"}
	case 2:
		s.Names = []v1alpha1.ObjectName{"builder"}
	case 3:
		s.ServiceAccountSelector = &metav1.LabelSelector{}
	case 4:
		s.ServiceAccountSelector = &metav1.LabelSelector{MatchExpressions: randomExpressions(random, "app")}
	case 5:
		s.ServiceAccountSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": pick(random, "web", "")}}
	}
	if random.IntN(3) > 0 {
		s.AutomountServiceAccountToken = new(random.IntN(2) == 0)
	}
	if random.IntN(2) == 0 {
		for _, name := range []v1alpha1.ObjectName{"registry", "a.b", "mine"} {
			if random.IntN(2) == 0 {
				s.ImagePullSecrets = append(s.ImagePullSecrets, v1alpha1.PullSecret{Name: name})
			}
		}
		random.Shuffle(len(s.ImagePullSecrets), func(i, j int) {
			s.ImagePullSecrets[i], s.ImagePullSecrets[j] = s.ImagePullSecrets[j], s.ImagePullSecrets[i]
		})
	}
	s.Priority, s.Force = pick[int32](random, -1, 0, 0, 7), random.IntN(3) == 0
}

// randomExpressions may be invalid.
func randomExpressions(random *rand.Rand, key string) []metav1.LabelSelectorRequirement {
	valid := []metav1.LabelSelectorRequirement{
		{Key: key, Operator: metav1.LabelSelectorOpIn, Values: []string{"db", "web"}}, {Key: key, Operator: metav1.LabelSelectorOpIn, Values: []string{"web", ""}},
		{Key: key, Operator: metav1.LabelSelectorOpNotIn, Values: []string{"web"}}, {Key: "example.com/Other", Operator: metav1.LabelSelectorOpNotIn, Values: []string{"x"}},
		{Key: key, Operator: metav1.LabelSelectorOpExists}, {Key: key, Operator: metav1.LabelSelectorOpDoesNotExist},
	}
	invalid := []metav1.LabelSelectorRequirement{
		{Key: key, Operator: metav1.LabelSelectorOpNotIn}, {Key: key, Operator: metav1.LabelSelectorOpNotIn, Values: []string{"-"}},
		{Key: "a b", Operator: metav1.LabelSelectorOpDoesNotExist}, {Key: "b", Operator: metav1.LabelSelectorOpDoesNotExist, Values: []string{"x"}},
		{Key: key, Operator: "Like", Values: []string{"x"}}, {Key: "example.com/", Operator: metav1.LabelSelectorOpNotIn, Values: []string{"x"}},
	}
	expressions := []metav1.LabelSelectorRequirement{pick(random, valid...)}
	if random.IntN(6) == 0 {
		expressions = append(expressions, pick(random, invalid...))
	}
	return expressions
}

// randomNewAccount is what a user may create.
func randomNewAccount(random *rand.Rand, namespace string) *corev1.ServiceAccount {
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: pick(random, "default", "default", "default", "builder", "other")}}
	if random.IntN(2) == 0 {
		account.Labels = map[string]string{"app": pick(random, "web", "", "other")}
	}
	if random.IntN(4) == 0 {
		account.Annotations = map[string]string{pick(random, "note", api.TemplatesAtCreationAnnotation): pick(random, "9/zzz/;x;force;", "9/a/true;;;", ";")}
	}
	if random.IntN(2) == 0 {
		account.AutomountServiceAccountToken = new(random.IntN(2) == 0)
	}
	if random.IntN(2) == 0 {
		for _, name := range pick(random, []string{"mine"}, []string{"registry"}, []string{"a.b", "registry"}, []string{"registry", "mine"}, []string{"A;b,c"}) {
			account.ImagePullSecrets = append(account.ImagePullSecrets, corev1.LocalObjectReference{Name: name})
		}
	}
	return account
}
