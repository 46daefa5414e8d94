package accounttemplate

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sakeeper/sakeeper/pkg/api/v1alpha1"
	"github.com/sakeeper/sakeeper/pkg/cache"
)

// merged returns the values and contradictions of templates in any order.
func merged(templates ...*v1alpha1.ServiceAccountTemplate) (map[cache.Field]desired, []contradiction) {
	var all []*cache.Template
	for _, t := range templates {
		all = append(all, cache.NewTemplate(t))
	}
	byPrecedence(all)
	return merge(all)
}

func TestMerge(t *testing.T) {
	label := cache.Field{Name: cache.FieldLabel, Key: "a"}
	secrets, automount := cache.Field{Name: cache.FieldPullSecrets}, cache.Field{Name: cache.FieldAutomount}
	labelled := func(name string, priority int32, value v1alpha1.LabelValue, force bool) *v1alpha1.ServiceAccountTemplate {
		return template(name, func(s *v1alpha1.ServiceAccountTemplateSpec) {
			s.Priority, s.Labels, s.Force = priority, map[string]v1alpha1.LabelValue{"a": value}, force
		})
	}
	pulling := func(name string, priority int32, force bool, names ...v1alpha1.ObjectName) *v1alpha1.ServiceAccountTemplate {
		return template(name, func(s *v1alpha1.ServiceAccountTemplateSpec) {
			s.Priority, s.Force = priority, force
			for _, n := range names {
				s.ImagePullSecrets = append(s.ImagePullSecrets, v1alpha1.PullSecret{Name: n})
			}
		})
	}
	cases := map[string]struct {
		in                 []*v1alpha1.ServiceAccountTemplate
		want               map[cache.Field]desired
		wantContradictions []contradiction
	}{
		"no template": {want: map[cache.Field]desired{}},
		"a template that says nothing": {
			in: []*v1alpha1.ServiceAccountTemplate{template("t", nil)}, want: map[cache.Field]desired{},
		},
		"the higher priority wins": {
			in:   []*v1alpha1.ServiceAccountTemplate{labelled("a", 1, "low", true), labelled("b", 2, "high", false)},
			want: map[cache.Field]desired{label: {value: "high", templates: []string{"b"}}},
		},
		"among equals, the first name wins, and the other is told": {
			in:                 []*v1alpha1.ServiceAccountTemplate{labelled("b", 1, "second", true), labelled("a", 1, "first", false)},
			want:               map[cache.Field]desired{label: {value: "first", templates: []string{"a"}}},
			wantContradictions: []contradiction{{field: label, loser: "b", winner: "a"}},
		},
		"equals that agree": {
			in:   []*v1alpha1.ServiceAccountTemplate{labelled("b", 1, "same", false), labelled("a", 1, "same", true)},
			want: map[cache.Field]desired{label: {value: "same", force: true, templates: []string{"a"}}},
		},
		"each field is decided alone": {
			in: []*v1alpha1.ServiceAccountTemplate{
				labelled("a", 2, "x", false),
				template("b", func(s *v1alpha1.ServiceAccountTemplateSpec) { s.AutomountServiceAccountToken = new(false) }),
			},
			want: map[cache.Field]desired{label: {value: "x", templates: []string{"a"}}, automount: {value: "false", templates: []string{"b"}}},
		},
		"pull secrets are united": {
			in: []*v1alpha1.ServiceAccountTemplate{pulling("a", 1, false, "z", "m"), pulling("b", 2, true, "m", "a")},
			want: map[cache.Field]desired{secrets: {
				value: "a,m,z", force: true, templates: []string{"b", "a"},
			}},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got, contradictions := merged(tc.in...)
			if diff := cmp.Diff(tc.want, got, cmp.AllowUnexported(desired{})); diff != "" {
				t.Errorf("fields (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.wantContradictions, contradictions, cmp.AllowUnexported(contradiction{})); diff != "" {
				t.Errorf("contradictions (-want +got):\n%s", diff)
			}
		})
	}
}

// TestMergeDependsOnNoOrder merges random templates in random orders.
func TestMergeDependsOnNoOrder(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		templates := randomTemplates(random)
		want, wantContradictions := merged(templates...)
		for range 5 {
			random.Shuffle(len(templates), func(i, j int) { templates[i], templates[j] = templates[j], templates[i] })
			got, contradictions := merged(templates...)
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(desired{})) + cmp.Diff(wantContradictions, contradictions, cmp.AllowUnexported(contradiction{})); diff != "" {
				t.Fatalf("another order of %+v gives (-want +got):\n%s", templates, diff)
			}
		}
		for field, d := range want {
			checkDecision(t, templates, field, d)
		}
	}
}

// checkDecision checks the merged value of a field against its definition.
func checkDecision(t *testing.T, templates []*v1alpha1.ServiceAccountTemplate, field cache.Field, got desired) {
	t.Helper()
	var best *v1alpha1.ServiceAccountTemplate
	var values []string
	for _, candidate := range templates {
		value, ok := fieldsOf(cache.NewTemplate(candidate))[field]
		if !ok {
			continue
		}
		values = append(values, value)
		if best == nil || candidate.Spec.Priority > best.Spec.Priority || candidate.Spec.Priority == best.Spec.Priority && candidate.Name < best.Name {
			best = candidate
		}
	}
	want := fieldsOf(cache.NewTemplate(best))[field]
	if field.Name == cache.FieldPullSecrets {
		want = unite(values...)
	}
	if got.value != want || got.templates[0] != best.Name {
		t.Fatalf("%v is %+v, want %q of %s", field, got, want, best.Name)
	}
}

func randomTemplates(random *rand.Rand) []*v1alpha1.ServiceAccountTemplate {
	var templates []*v1alpha1.ServiceAccountTemplate
	for i := range 1 + random.IntN(5) {
		templates = append(templates, template(fmt.Sprint("t", i), func(s *v1alpha1.ServiceAccountTemplateSpec) {
			s.Priority, s.Force = int32(random.IntN(3)), random.IntN(2) == 0
			s.Labels, s.Annotations = map[string]v1alpha1.LabelValue{}, map[string]v1alpha1.AnnotationValue{}
			for range random.IntN(3) {
				key, value := string(rune('a'+random.IntN(3))), string(rune('x'+random.IntN(3)))
				s.Labels[key], s.Annotations[key] = v1alpha1.LabelValue(value), v1alpha1.AnnotationValue(value+value)
				if name := v1alpha1.ObjectName("secret-" + key); !slices.Contains(s.ImagePullSecrets, v1alpha1.PullSecret{Name: name}) {
					s.ImagePullSecrets = append(s.ImagePullSecrets, v1alpha1.PullSecret{Name: name})
				}
			}
			if random.IntN(2) == 0 {
				s.AutomountServiceAccountToken = new(random.IntN(2) == 0)
			}
		}))
	}
	return templates
}
