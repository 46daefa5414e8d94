package accounttemplate

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/sakeeper/sakeeper/pkg/cache"
)

// desired is the value that a field should have.
type desired struct {
	value string
	// force takes the field from another field manager.
	force bool
	// templates are those that say so, the deciding one first. Only pull secrets have several.
	templates []string
}

// contradiction is a field that a template sets in vain: another one of the same priority has set it.
type contradiction struct {
	field         cache.Field
	loser, winner string
}

// byPrecedence sorts templates: the highest priority first, then by name.
func byPrecedence(templates []*cache.Template) {
	slices.SortFunc(templates, cache.CompareTemplates)
}

// merge returns the fields that templates, which are sorted by precedence, set together.
func merge(templates []*cache.Template) (map[cache.Field]desired, []contradiction) {
	fields := map[cache.Field]desired{}
	priorities := map[cache.Field]int32{}
	var contradictions []contradiction
	for _, t := range templates {
		for field, value := range fieldsOf(t) {
			before, decided := fields[field]
			switch {
			case !decided:
				fields[field] = desired{value: value, force: t.Spec.Force, templates: []string{t.Name}}
				priorities[field] = t.Spec.Priority
			case field.Name == cache.FieldPullSecrets:
				fields[field] = desired{
					value: unite(before.value, value), force: before.force || t.Spec.Force,
					templates: append(before.templates, t.Name),
				}
			case before.value != value && priorities[field] == t.Spec.Priority:
				contradictions = append(contradictions, contradiction{field: field, loser: t.Name, winner: before.templates[0]})
			}
		}
	}
	slices.SortFunc(contradictions, func(a, b contradiction) int {
		return cmp.Or(cmp.Compare(a.loser, b.loser), cmp.Compare(a.field.String(), b.field.String()))
	})
	return fields, contradictions
}

// fieldsOf returns the fields that a template sets, in the form of [cache.FieldState].
func fieldsOf(t *cache.Template) map[cache.Field]string {
	fields := map[cache.Field]string{}
	for key, value := range t.Spec.Labels {
		fields[cache.Field{Name: cache.FieldLabel, Key: key}] = string(value)
	}
	for key, value := range t.Spec.Annotations {
		fields[cache.Field{Name: cache.FieldAnnotation, Key: key}] = string(value)
	}
	if automount := t.Spec.AutomountServiceAccountToken; automount != nil {
		fields[cache.Field{Name: cache.FieldAutomount}] = strconv.FormatBool(*automount)
	}
	var names []string
	for _, secret := range t.Spec.ImagePullSecrets {
		names = append(names, string(secret.Name))
	}
	if len(names) > 0 {
		fields[cache.Field{Name: cache.FieldPullSecrets}] = unite(names...)
	}
	return fields
}

// unite returns lists of names, with commas between them, as one list that is sorted.
func unite(lists ...string) string {
	names := strings.Split(strings.Join(lists, ","), ",")
	slices.Sort(names)
	return strings.Join(slices.Compact(names), ",")
}
