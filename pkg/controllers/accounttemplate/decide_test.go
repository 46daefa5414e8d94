package accounttemplate

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/api/v1alpha1"
	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

const (
	ownsAutomount   = `{"f:automountServiceAccountToken":{}}`
	ownsPullSecrets = `{"f:imagePullSecrets":{}}`
	ownsTeam        = `{"f:metadata":{"f:labels":{"f:team":{}}}}`
)

// specs change the specs of templates, by name.
type specs map[string]func(*v1alpha1.ServiceAccountTemplateSpec)

func noAutomount(s *v1alpha1.ServiceAccountTemplateSpec) {
	s.AutomountServiceAccountToken = new(false)
}

func TestDecide(t *testing.T) {
	forced := func(s *v1alpha1.ServiceAccountTemplateSpec) { noAutomount(s); s.Force = true }
	creating := func(s *v1alpha1.ServiceAccountTemplateSpec) { noAutomount(s); s.Create = true }
	registry := func(s *v1alpha1.ServiceAccountTemplateSpec) {
		s.ImagePullSecrets = []v1alpha1.PullSecret{{Name: "b"}, {Name: "a"}}
	}
	byTeam := func(s *v1alpha1.ServiceAccountTemplateSpec) {
		noAutomount(s)
		s.ServiceAccountSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"team": "blue"}}
	}
	invalid := func(s *v1alpha1.ServiceAccountTemplateSpec) {
		s.NamespaceSelector = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Like"}}}
	}
	cases := map[string]struct {
		inNamespace *corev1.Namespace // default: team, active
		inName      string            // default: default
		inAccount   *corev1.ServiceAccount
		inTemplates specs
		want        action
		wantFields  map[string]string
		wantForce   bool
		wantRemoved []string
		conflicts   []string
	}{
		"no template": {inAccount: account(automount(true))},
		"a value is set": {
			inAccount: account(), inTemplates: specs{"t": noAutomount},
			want: apply, wantFields: map[string]string{"automountServiceAccountToken": "false"},
		},
		"a value that admission set is taken over": {
			inAccount: account(automount(false)), inTemplates: specs{"t": noAutomount},
			want: apply, wantFields: map[string]string{"automountServiceAccountToken": "false"},
		},
		"another value without an owner is replaced": {
			inAccount: account(automount(true)), inTemplates: specs{"t": noAutomount},
			want: apply, wantFields: map[string]string{"automountServiceAccountToken": "false"},
		},
		"what is right is not written": {
			inAccount:   account(automount(false), owned(nothing(), ours(ownsAutomount))),
			inTemplates: specs{"t": noAutomount},
			wantFields:  map[string]string{"automountServiceAccountToken": "false"},
		},
		"a changed value is written": {
			inAccount:   account(automount(true), owned(nothing(), ours(ownsAutomount))),
			inTemplates: specs{"t": noAutomount},
			want:        apply, wantFields: map[string]string{"automountServiceAccountToken": "false"},
		},
		"the value of another manager is a conflict": {
			inAccount:   account(automount(true), owned(theirs(ownsAutomount))),
			inTemplates: specs{"t": noAutomount},
			conflicts:   []string{"automountServiceAccountToken user"},
		},
		"the same value of another manager is shared": {
			inAccount:   account(automount(false), owned(theirs(ownsAutomount))),
			inTemplates: specs{"t": noAutomount},
			want:        apply, wantFields: map[string]string{"automountServiceAccountToken": "false"},
		},
		"an object without managedFields has values of another manager": {
			inAccount:   account(automount(true), owned()),
			inTemplates: specs{"t": noAutomount},
			conflicts:   []string{"automountServiceAccountToken before-first-apply"},
		},
		"an empty list of another manager is a conflict": {
			inAccount:   account(owned(theirs(ownsPullSecrets))),
			inTemplates: specs{"t": registry},
			conflicts:   []string{"imagePullSecrets user"},
		},
		"a conflict keeps no other field from being set": {
			inAccount:   account(automount(true), owned(theirs(ownsAutomount))),
			inTemplates: specs{"t": noAutomount, "u": registry},
			want:        apply, wantFields: map[string]string{"imagePullSecrets": "a,b"},
			conflicts: []string{"automountServiceAccountToken user"},
		},
		"what admission set and a template too is removed": {
			inAccount:   account(automount(false), testkit.WithLabel("team", "blue"), owned(inherited(), ours(`{"f:automountServiceAccountToken":{},"f:metadata":{"f:labels":{"f:team":{}}}}`))),
			want:        remove,
			wantRemoved: []string{"automountServiceAccountToken", "labels[team]"},
		},
		"unless a user sets it too": {
			inAccount: account(automount(false), owned(inherited(), theirs(ownsAutomount), ours(ownsAutomount))), want: apply,
		},
		"what admission set follows a change of the template": {
			inAccount:   account(automount(true), owned(inherited(), ours(ownsAutomount))),
			inTemplates: specs{"t": noAutomount},
			want:        apply, wantForce: true, wantFields: map[string]string{"automountServiceAccountToken": "false"},
		},
		"force takes it": {
			inAccount:   account(automount(true), owned(theirs(ownsAutomount))),
			inTemplates: specs{"t": forced},
			want:        apply, wantForce: true, wantFields: map[string]string{"automountServiceAccountToken": "false"},
		},
		"force is not used for nothing": {
			inAccount: account(automount(true)), inTemplates: specs{"t": forced},
			want: apply, wantFields: map[string]string{"automountServiceAccountToken": "false"},
		},
		"what no template says is given back": {
			inAccount:   account(automount(false), pullSecrets("a", "b"), owned(ours(`{"f:automountServiceAccountToken":{},"f:imagePullSecrets":{}}`))),
			inTemplates: specs{"t": registry},
			want:        apply, wantFields: map[string]string{"imagePullSecrets": "a,b"},
		},
		"what the policy account-templates has set is owned, and its note is given back": {
			inAccount: account(automount(false), testkit.WithAnnotation(api.TemplatesAtCreationAnnotation, "0/t/;;;"),
				owned(ours(`{"f:automountServiceAccountToken":{},"f:metadata":{"f:annotations":{"f:sakeeper.io/templates-at-creation":{}}}}`))),
			inTemplates: specs{"t": noAutomount},
			want:        apply, wantFields: map[string]string{"automountServiceAccountToken": "false"},
		},
		"also the last of it":            {inAccount: account(automount(false), owned(ours(ownsAutomount))), want: apply},
		"what a user set is left to him": {inAccount: account(automount(true), owned(theirs(ownsAutomount)))},
		"while a selector cannot be parsed, nothing is given back": {
			inAccount:   account(automount(false), owned(ours(ownsAutomount))),
			inTemplates: specs{"bad": invalid},
			wantFields:  map[string]string{"automountServiceAccountToken": "false"},
		},
		"and the others go on": {
			inAccount:   account(automount(false), owned(ours(ownsAutomount))),
			inTemplates: specs{"bad": invalid, "t": registry},
			want:        apply, wantFields: map[string]string{"automountServiceAccountToken": "false", "imagePullSecrets": "a,b"},
		},
		"an account of another name": {
			inName: "builder", inAccount: account(), inTemplates: specs{"t": noAutomount},
		},
		"an account with the label": {
			inAccount:   account(testkit.WithLabel("team", "blue"), owned(theirs(ownsTeam))),
			inTemplates: specs{"t": byTeam},
			want:        apply, wantFields: map[string]string{"automountServiceAccountToken": "false"},
		},
		"a label that a template set selects nothing": {
			inAccount: account(testkit.WithLabel("team", "blue"), owned(ours(ownsTeam))),
			inTemplates: specs{"t": byTeam, "u": func(s *v1alpha1.ServiceAccountTemplateSpec) {
				s.Labels = map[string]v1alpha1.LabelValue{"team": "blue"}
			}},
			wantFields: map[string]string{"labels[team]": "blue"},
		},
		"a missing account": {inTemplates: specs{"t": noAutomount}},
		"a missing account that is created": {
			inTemplates: specs{"t": creating, "u": registry},
			want:        create, wantFields: map[string]string{"automountServiceAccountToken": "false", "imagePullSecrets": "a,b"},
		},
		"it gets at once what a selector for all says": {
			inTemplates: specs{"t": creating, "u": func(s *v1alpha1.ServiceAccountTemplateSpec) {
				registry(s)
				s.ServiceAccountSelector = &metav1.LabelSelector{}
			}},
			want: create, wantFields: map[string]string{"automountServiceAccountToken": "false", "imagePullSecrets": "a,b"},
		},
		"an account that is being deleted": {
			inAccount: account(testkit.Deleting()), inTemplates: specs{"t": noAutomount},
		},
		"a namespace that is being deleted": {
			inNamespace: testkit.Namespace("team", testkit.Terminating()), inAccount: account(),
			inTemplates: specs{"t": noAutomount},
		},
		"kube-system": {
			inNamespace: testkit.Namespace("kube-system"), inAccount: account(),
			inTemplates: specs{"t": noAutomount},
		},
		"kube-system, by a selector for all": {
			inNamespace: testkit.Namespace("kube-system"), inAccount: account(),
			inTemplates: specs{"t": func(s *v1alpha1.ServiceAccountTemplateSpec) {
				noAutomount(s)
				s.NamespaceSelector = &metav1.LabelSelector{}
			}},
		},
		"kube-system, by its name": {
			inNamespace: testkit.Namespace("kube-system", testkit.WithLabel("kubernetes.io/metadata.name", "kube-system")), inAccount: account(),
			inTemplates: specs{"t": func(s *v1alpha1.ServiceAccountTemplateSpec) {
				noAutomount(s)
				s.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"kubernetes.io/metadata.name": "kube-system"}}
			}},
			want: apply, wantFields: map[string]string{"automountServiceAccountToken": "false"},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			s := state{namespace: tc.inNamespace, name: tc.inName}
			if s.namespace == nil {
				s.namespace = testkit.Namespace("team")
			}
			if s.name == "" {
				s.name = "default"
			}
			if tc.inAccount != nil {
				s.account = cache.NewAccount(tc.inAccount)
			}
			for name, change := range tc.inTemplates {
				s.templates = append(s.templates, cache.NewTemplate(template(name, change)))
			}
			byPrecedence(s.templates)
			got := decide(s)
			fields := map[string]string{}
			for field, value := range got.fields {
				fields[field.String()] = value
			}
			var conflicts []string
			for _, c := range got.conflicts {
				conflicts = append(conflicts, c.field.String()+" "+c.manager)
			}
			if got.action != tc.want || got.force != tc.wantForce || got.reason == "" {
				t.Errorf("action %d, force %t, because %q", got.action, got.force, got.reason)
			}
			var removed []string
			for _, field := range got.removed {
				removed = append(removed, field.String())
			}
			slices.Sort(removed)
			if diff := cmp.Diff(tc.wantFields, fields, cmpopts.EquateEmpty()) + cmp.Diff(tc.wantRemoved, removed) + cmp.Diff(tc.conflicts, conflicts); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// TestOneWriteIsEnough: after the apply that decide asks for, there is nothing to do, and after one
// without templates nothing is owned. The API server's side is imitated: an apply sets fields, owns
// them, and removes those that it owned alone.
func TestOneWriteIsEnough(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	writes := 0
	for range 500 {
		s := state{namespace: testkit.Namespace("team"), name: "default", account: randomAccount(random)}
		for _, t := range randomTemplates(random) {
			s.templates = append(s.templates, cache.NewTemplate(t))
		}
		byPrecedence(s.templates)
		for range 2 {
			before := fmt.Sprint(s.account.Fields)
			p := decide(s)
			if p.action == apply {
				writes++
				s.account.Fields = applied(t, s.account.Fields, p)
			}
			if again := decide(s); again.action != none {
				t.Fatalf("after an apply of %v to %s, there is still: %s", p.fields, before, again.reason)
			}
			s.templates = nil
		}
		for field, state := range s.account.Fields {
			if state.Ours || !state.Present {
				t.Fatalf("%v is left: %+v", field, state)
			}
		}
	}
	if writes < 500 {
		t.Errorf("only %d writes", writes)
	}
}

// applied imitates the API server.
func applied(t *testing.T, before map[cache.Field]cache.FieldState, p plan) map[cache.Field]cache.FieldState {
	t.Helper()
	after := map[cache.Field]cache.FieldState{}
	for field, state := range before {
		if _, ok := p.fields[field]; !ok {
			if state.Ours && state.Other == "" {
				continue
			}
			state.Ours = false
		}
		after[field] = state
	}
	for field, value := range p.fields {
		state := after[field]
		if state.Other != "" && state.Value != value {
			if !p.force {
				t.Fatalf("the API server refuses %v: a conflict with %s", field, state.Other)
			}
			state.Other = ""
		}
		state.Present, state.Value, state.Ours = true, value, true
		after[field] = state
	}
	return after
}

func randomAccount(random *rand.Rand) *cache.Account {
	a := &cache.Account{Fields: map[cache.Field]cache.FieldState{}}
	for _, field := range []cache.Field{{Name: cache.FieldAutomount}, {Name: cache.FieldPullSecrets}, {Name: cache.FieldLabel, Key: "a"}, {Name: cache.FieldAnnotation, Key: "b"}} {
		values := map[string][]string{cache.FieldAutomount: {"true", "false"}, cache.FieldPullSecrets: {"secret-a", "own"}, cache.FieldLabel: {"x", "own"}, cache.FieldAnnotation: {"yy", "own"}}[field.Name]
		if random.IntN(2) == 0 {
			continue
		}
		state := cache.FieldState{Present: true, Value: values[random.IntN(len(values))], Ours: random.IntN(2) == 0}
		if random.IntN(2) == 0 {
			state.Other = "user"
		}
		a.Fields[field] = state
	}
	return a
}

func TestKubeSystemIsNamed(t *testing.T) {
	kubeSystem := testkit.Namespace("kube-system", testkit.WithLabel("kubernetes.io/metadata.name", "kube-system"))
	const key = "kubernetes.io/metadata.name"
	cases := map[string]struct {
		in   *metav1.LabelSelector
		want bool
	}{
		"no selector":    {},
		"an empty one":   {in: &metav1.LabelSelector{}},
		"a list":         {in: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: key, Operator: metav1.LabelSelectorOpIn, Values: []string{"a", "kube-system"}}}}, want: true},
		"another list":   {in: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: key, Operator: metav1.LabelSelectorOpIn, Values: []string{"a"}}}}},
		"all but others": {in: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: key, Operator: metav1.LabelSelectorOpNotIn, Values: []string{"a"}}}}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := cache.NewTemplate(template("t", func(s *v1alpha1.ServiceAccountTemplateSpec) { s.NamespaceSelector = tc.in })).SelectsNamespace(kubeSystem)
			if got != tc.want {
				t.Errorf("selected: %t", got)
			}
		})
	}
}
