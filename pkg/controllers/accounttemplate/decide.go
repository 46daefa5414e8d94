package accounttemplate

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/sakeeper/sakeeper/pkg/cache"
)

// state is what is known about one ServiceAccount.
type state struct {
	namespace *corev1.Namespace // nil if it does not exist
	name      string
	account   *cache.Account // nil if it does not exist
	// templates are all that there are, sorted by precedence.
	templates []*cache.Template
}

type action int

const (
	none action = iota
	create
	apply
	remove
)

// plan is what is to be done with a ServiceAccount.
type plan struct {
	action action
	reason string
	// fields are all that the field manager of the templates should own. An apply of fewer removes
	// the others.
	fields map[cache.Field]string
	// removed are the fields that remove removes. An apply of fewer fields would leave those that
	// admission set, which [cache.BeforeFirstApply] owns too. Other changes are decided after it.
	removed []cache.Field
	// force: some of fields are taken from another field manager.
	force bool

	// selected are the templates that select the ServiceAccount.
	selected       []*cache.Template
	conflicts      []conflict
	contradictions []contradiction
}

// conflict is a field that another field manager has set to something else.
type conflict struct {
	field     cache.Field
	manager   string
	templates []string
}

func decide(s state) plan {
	switch {
	case s.namespace == nil:
		return plan{reason: "namespace does not exist"}
	case s.namespace.Status.Phase != corev1.NamespaceActive:
		return plan{reason: "namespace is not active"}
	case s.account != nil && s.account.DeletionTimestamp != nil:
		return plan{reason: "service account is being deleted"}
	}
	p := plan{selected: selecting(s)}
	wanted, contradictions := merge(p.selected)
	p.contradictions = contradictions
	if s.account == nil {
		if !slices.ContainsFunc(p.selected, func(t *cache.Template) bool { return t.Spec.Create }) {
			return plan{reason: "service account does not exist"}
		}
		p.action, p.reason, p.fields = create, "service account is missing", map[cache.Field]string{}
		for field, w := range wanted {
			p.fields[field] = w.value
		}
		return p
	}
	p.compare(s.account, wanted, isInvalid(s.templates))
	return p
}

// selecting returns the templates that select the ServiceAccount. One that does not exist has the labels
// that count after it was created: none.
func selecting(s state) []*cache.Template {
	var accountLabels map[string]string
	if s.account != nil {
		accountLabels = s.account.SelectableLabels()
	}
	var selected []*cache.Template
	for _, t := range s.templates {
		if t.SelectsNamespace(s.namespace) && t.SelectsAccount(s.name, accountLabels) {
			selected = append(selected, t)
		}
	}
	return selected
}

// isInvalid returns true if it is not known what some template selects.
func isInvalid(templates []*cache.Template) bool {
	return slices.ContainsFunc(templates, func(t *cache.Template) bool { return t.Invalid != nil })
}

// compare decides between apply, remove and none. Keep is true if fields that no template sets are kept.
func (p *plan) compare(account *cache.Account, wanted map[cache.Field]desired, keep bool) {
	p.reason, p.fields = "service account is right", map[cache.Field]string{}
	p.compareWanted(account, wanted)
	p.compareOwned(account, wanted, keep)
	slices.SortFunc(p.conflicts, func(a, b conflict) int { return cmp.Compare(a.field.String(), b.field.String()) })
}

// compareWanted looks for fields that must be set.
func (p *plan) compareWanted(account *cache.Account, wanted map[cache.Field]desired) {
	for field, w := range wanted {
		is := account.Fields[field]
		equal := is.Present && is.Value == w.value
		if !equal && is.Other != "" {
			if !w.force && !isInherited(is) {
				p.conflicts = append(p.conflicts, conflict{field: field, manager: is.Other, templates: w.templates})
				continue
			}
			p.force = true
		}
		p.fields[field] = w.value
		if !equal || !is.Ours {
			p.action, p.reason = apply, "a field of a template is not set"
		}
	}
}

// compareOwned looks for fields that must be given back.
func (p *plan) compareOwned(account *cache.Account, wanted map[cache.Field]desired, keep bool) {
	var alone []cache.Field // no other client has set them
	inherited := false
	for field, is := range account.Fields {
		if _, isApplied := p.fields[field]; isApplied || !is.Ours {
			continue
		}
		if _, isWanted := wanted[field]; keep && !isWanted && is.Present {
			p.fields[field] = is.Value
			continue
		}
		p.action, p.reason = apply, "a field is given back"
		if is.Other == "" || isInherited(is) {
			alone = append(alone, field)
		}
		inherited = inherited || isInherited(is)
	}
	if inherited {
		p.action, p.removed = remove, alone
	}
}

// isInherited returns true for a field that admission set, and that a template set to the same value.
func isInherited(is cache.FieldState) bool { return is.Ours && is.Other == cache.BeforeFirstApply }
