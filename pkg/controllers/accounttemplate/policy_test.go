package accounttemplate

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/api/v1alpha1"
	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane/controlplanetest"
)

// admissionFields are those that the policy sets.
var admissionFields = []cache.Field{{Name: cache.FieldAutomount}, {Name: cache.FieldPullSecrets}}

// TestThePolicyDecidesAsTheController: random templates, in a random order each time, because API servers
// have them in a map, and random accounts, which come out of admission as decide says. Nothing is stored
// but the templates.
func TestThePolicyDecidesAsTheController(t *testing.T) {
	const sets, accounts, orders = 60, 4, 6
	p := newControlPlane(t)
	must(t, p.Install(t.Context(), "policies/account-defaults", "policies/account-templates"))
	random := rand.New(rand.NewPCG(5, 6))
	counts := map[string]int{}
	for i := range sets {
		set := newTemplateSet(t, p, random, i)
		p.awaitPolicy(t, set.namespace.Name, fmt.Sprint("barrier-", i))
		for range accounts {
			account := randomNewAccount(random, set.namespace.Name)
			want := set.expected(account)
			for range orders {
				got := p.admit(t, account, random.IntN(2) == 0)
				if diff := cmp.Diff(want.looks, looksOf(got)); diff != "" {
					t.Fatalf("set %d, account %+v (-want +got):\n%s\ntemplates:\n%s", i, account, diff, set)
				}
				set.expectOwned(t, got, want)
			}
			counts[want.kind]++
		}
		for _, template := range set.templates {
			p.remove(t, template.Name)
		}
	}
	t.Logf("accounts by what templates do: %v", counts)
	for _, kind := range []string{"nothing", "set", "conflict", "force"} {
		if counts[kind] < sets*accounts/50 {
			t.Errorf("only %d accounts of the kind %q", counts[kind], kind)
		}
	}
}

// templateSet are templates that exist at the same time, for a namespace.
type templateSet struct {
	namespace *corev1.Namespace
	templates []*v1alpha1.ServiceAccountTemplate
}

func (s templateSet) String() string {
	var text strings.Builder
	for _, t := range s.templates {
		fmt.Fprintf(&text, "%s: %+v\n", t.Name, t.Spec)
	}
	return text.String()
}

func newTemplateSet(t *testing.T, p controlPlane, random *rand.Rand, i int) templateSet {
	t.Helper()
	name := fmt.Sprint("set-", i)
	labels := map[string]string{"set": name}
	if random.IntN(2) == 0 {
		labels["tier"] = pick(random, "web", "db")
	}
	if random.IntN(3) == 0 {
		labels["sakeeper.io/account-defaults"] = "enabled"
	}
	namespace, err := p.Client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}, metav1.CreateOptions{})
	must(t, err)
	namespace.Status.Phase = corev1.NamespaceActive
	set := templateSet{namespace: namespace}
	for j := range random.IntN(7) {
		// The names are in no order.
		name := fmt.Sprintf("%c-%d-%d", 'a'+rune(random.IntN(26)), i, j)
		set.templates = append(set.templates, template(name, func(s *v1alpha1.ServiceAccountTemplateSpec) { randomSpec(random, namespace.Labels["set"], s) }))
	}
	for _, template := range set.templates {
		p.create(t, template.Name, template.Spec)
	}
	return set
}

// admit creates an account without effect, by a create or an apply, and returns what would be stored.
func (p controlPlane) admit(t *testing.T, account *corev1.ServiceAccount, apply bool) *corev1.ServiceAccount {
	t.Helper()
	client, dryRun := p.Client.CoreV1().ServiceAccounts(account.Namespace), []string{metav1.DryRunAll}
	if !apply {
		created, err := client.Create(t.Context(), account, metav1.CreateOptions{FieldManager: "user", DryRun: dryRun})
		must(t, err)
		return created
	}
	applied := applycorev1.ServiceAccount(account.Name, account.Namespace).WithLabels(account.Labels).WithAnnotations(account.Annotations)
	applied.AutomountServiceAccountToken = account.AutomountServiceAccountToken
	for _, secret := range account.ImagePullSecrets {
		applied.WithImagePullSecrets(applycorev1.LocalObjectReference().WithName(secret.Name))
	}
	created, err := client.Apply(t.Context(), applied, metav1.ApplyOptions{FieldManager: "user", DryRun: dryRun})
	must(t, err)
	return created
}

// awaitPolicy waits until the policy sees the templates that exist: it knows one that was created after
// them, for a namespace, by that name.
func (p controlPlane) awaitPolicy(t *testing.T, namespace, name string) {
	t.Helper()
	p.create(t, name, v1alpha1.ServiceAccountTemplateSpec{
		NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: namespace}},
		Names:             []v1alpha1.ObjectName{"barrier"}, ImagePullSecrets: []v1alpha1.PullSecret{{Name: v1alpha1.ObjectName(name)}},
	})
	controlplanetest.Eventually(t, "the policy knows the template "+name, func(ctx context.Context) error {
		created, err := p.Client.CoreV1().ServiceAccounts(namespace).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "barrier"}},
			metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err == nil && !slices.Contains(created.ImagePullSecrets, corev1.LocalObjectReference{Name: name}) {
			err = errors.New("it does not")
		}
		return err
	})
	p.remove(t, name)
}

// looksOf returns the fields that the policy sets.
func looksOf(account *corev1.ServiceAccount) map[string]string {
	looks := map[string]string{}
	state := cache.NewAccount(account)
	for _, field := range admissionFields {
		if is := state.Fields[field]; is.Present {
			looks[field.Name] = is.Value
		}
	}
	return looks
}

// expectation is what should come out of admission.
type expectation struct {
	looks     map[string]string
	owned     map[cache.Field]bool
	conflicts []string
	kind      string
}

// state is an account that the controller finds.
func (s templateSet) state(account *corev1.ServiceAccount) state {
	found := state{namespace: s.namespace, name: account.Name, account: cache.NewAccount(account)}
	for _, t := range s.templates {
		found.templates = append(found.templates, cache.NewTemplate(t))
	}
	byPrecedence(found.templates)
	return found
}

// expected returns what the controller would make of an account that no policy has changed.
func (s templateSet) expected(account *corev1.ServiceAccount) expectation {
	unchanged := account.DeepCopy()
	owned := map[string]string{}
	if account.AutomountServiceAccountToken != nil {
		owned["f:automountServiceAccountToken"] = "{}"
	}
	if len(account.ImagePullSecrets) > 0 {
		owned["f:imagePullSecrets"] = "{}"
	}
	if len(account.Labels) > 0 {
		owned["f:metadata"] = `{"f:labels":{"f:app":{}}}`
	}
	var fields []string
	for _, path := range slices.Sorted(maps.Keys(owned)) {
		fields = append(fields, fmt.Sprintf("%q:%s", path, owned[path]))
	}
	unchanged.ManagedFields = []metav1.ManagedFieldsEntry{nothing(), theirs("{" + strings.Join(fields, ",") + "}")}
	found := s.state(unchanged)
	p := decide(found)
	want := expectation{looks: looksOf(unchanged), owned: map[cache.Field]bool{}, conflicts: conflictsOf(p), kind: "nothing"}
	if _, ok := want.looks[cache.FieldAutomount]; !ok && s.namespace.Labels["sakeeper.io/account-defaults"] == "enabled" {
		want.looks[cache.FieldAutomount] = "false"
	}
	for _, field := range admissionFields {
		value, decided := p.fields[field]
		is := found.account.Fields[field]
		isShared := is.Present && is.Value == value && is.Other != "" // the controller becomes a second owner
		if decided && !isShared {
			want.looks[field.Name], want.owned[field], want.kind = value, true, "set"
		}
	}
	if p.force {
		want.kind = "force"
	} else if len(p.conflicts) > 0 {
		want.kind = "conflict"
	}
	return want
}

func conflictsOf(p plan) []string {
	var conflicts []string
	for _, c := range p.conflicts {
		conflicts = append(conflicts, c.field.String()+" "+c.manager)
	}
	return conflicts
}

// expectOwned expects that the controller owns what templates set, and nothing else, and that it has one
// thing left to do: to remove the annotation.
func (s templateSet) expectOwned(t *testing.T, account *corev1.ServiceAccount, want expectation) {
	t.Helper()
	found := s.state(account)
	owned, note := map[cache.Field]bool{}, cache.Field{Name: cache.FieldAnnotation, Key: api.TemplatesAtCreationAnnotation}
	for field, is := range found.account.Fields {
		if is.Ours && field != note {
			owned[field] = true
			if is.Other != "" {
				t.Errorf("%v is also of %s", field, is.Other)
			}
		}
	}
	if diff := cmp.Diff(want.owned, owned) + cmp.Diff(want.conflicts, conflictsOf(decide(found)), cmpopts.EquateEmpty()); diff != "" {
		t.Fatalf("owned fields, and conflicts (-want +got):\n%s\naccount %+v\ntemplates:\n%s", diff, account, s)
	}
	delete(found.account.Fields, note)
	if p := decide(found); p.action != none && !s.shares(found, p) || p.force {
		t.Fatalf("besides the annotation, the controller has to do: %s\naccount %+v\ntemplates:\n%s", p.reason, account, s)
	}
}

// shares returns true if the controller has to become a second owner of a value that the creator has set.
func (s templateSet) shares(found state, p plan) bool {
	return slices.ContainsFunc(admissionFields, func(field cache.Field) bool {
		is := found.account.Fields[field]
		return p.fields[field] == is.Value && is.Present && !is.Ours && is.Other != ""
	})
}

// TestAccountsOfThePolicyAreWrittenOnce: the account comes with its settings, the controller removes the
// annotation by its one write, and nothing is left when the template goes.
func TestAccountsOfThePolicyAreWrittenOnce(t *testing.T) {
	p := newControlPlane(t)
	must(t, p.Install(t.Context(), "policies/account-templates"))
	for name, tc := range map[string]struct {
		change func(*corev1.ServiceAccount, *v1alpha1.ServiceAccountTemplateSpec)
		// imitated: the creator applies the account as the field manager of the controller.
		imitated bool
		want     string
	}{
		"an account that says nothing": {want: "labels[] annotations[%s:0/%s/;registry;;] false [registry]"},
		"settings that are forced": {
			change: func(account *corev1.ServiceAccount, spec *v1alpha1.ServiceAccountTemplateSpec) {
				spec.Force = true
				account.AutomountServiceAccountToken, account.ImagePullSecrets = new(true), []corev1.LocalObjectReference{{Name: "mine"}}
			},
			want: "labels[] annotations[%s:0/%s/true;registry;force;mine] false [registry]",
		},
		"an annotation of the creator": {
			change: func(account *corev1.ServiceAccount, _ *v1alpha1.ServiceAccountTemplateSpec) {
				account.Annotations = map[string]string{api.TemplatesAtCreationAnnotation: "99/z/;;force;"}
			},
			want: "labels[] annotations[%s:0/%s/;registry;;] false [registry]",
		},
		"a creator that imitates the controller": { // what it decides goes with the controller's write
			change: func(account *corev1.ServiceAccount, _ *v1alpha1.ServiceAccountTemplateSpec) {
				account.Annotations = map[string]string{api.TemplatesAtCreationAnnotation: "99/z/;x;;"}
			},
			imitated: true,
			want:     "labels[] annotations[%s:99/z/;registry,x;;] unset [registry x]",
		},
	} {
		t.Run(name, func(t *testing.T) {
			namespace := p.newNamespace(t)
			account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "builder"}}
			spec := hardened(namespace)
			spec.Names = []v1alpha1.ObjectName{"builder"}
			if tc.change != nil {
				tc.change(account, &spec)
			}
			p.create(t, namespace, spec)
			p.awaitPolicy(t, namespace, "barrier-"+namespace)
			if tc.imitated {
				applied := applycorev1.ServiceAccount(account.Name, namespace).WithAnnotations(account.Annotations)
				_, err := p.Client.CoreV1().ServiceAccounts(namespace).Apply(t.Context(), applied, metav1.ApplyOptions{FieldManager: api.TemplateFieldManager})
				must(t, err)
			} else {
				p.newAccount(t, account)
			}
			want := strings.Replace(tc.want, "%s", api.TemplatesAtCreationAnnotation, 1)
			want = strings.Replace(want, "%s", namespace, 1)
			created, err := p.looks(t.Context(), namespace, "builder")
			must(t, err)
			if diff := cmp.Diff(want, created); diff != "" {
				t.Errorf("the account as it was created (-want +got):\n%s", diff)
			}
			mark := p.mark(t)
			r := p.runReady(t)
			p.expectLooks(t, namespace, "builder", allSet)
			p.expectCondition(t, namespace, v1alpha1.ConditionReady, metav1.ConditionTrue, "")
			if diff := cmp.Diff([]string{"patch " + namespace + "/builder"}, p.writes(t, mark)); diff != "" {
				t.Errorf("writes (-want +got):\n%s", diff)
			}
			p.remove(t, namespace)
			p.expectLooks(t, namespace, "builder", plain)
			r.stop()
		})
	}
}
