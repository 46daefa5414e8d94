package reach

import (
	"fmt"
	"slices"
	"strings"
)

// Level is how far the rights of an account go. A higher level includes the lower ones as far as
// danger goes, not as single rights.
type Level int

// The levels, from the lowest.
const (
	// Unknown is the level of an account if not all RBAC objects could be read, unless what could be
	// read makes it cluster-admin already.
	Unknown Level = iota
	// Nothing is what every account may do: discovery, and questions about itself.
	Nothing
	// Read is to read objects other than Secrets.
	Read
	// Write is to change objects.
	Write
	// Secrets is to read Secrets, directly or by running pods that mount them.
	Secrets
	// CanBecomeAdmin is to have a right by which one can get all others.
	CanBecomeAdmin
	// Admin is to have all rights on all resources.
	Admin
)

// Levels returns all levels, from the highest.
func Levels() []Level {
	return []Level{Admin, CanBecomeAdmin, Secrets, Write, Read, Nothing, Unknown}
}

// String returns the name of the level, such as "can become cluster-admin".
func (l Level) String() string {
	switch l {
	case Admin:
		return "cluster-admin"
	case CanBecomeAdmin:
		return "can become cluster-admin"
	case Secrets:
		return secrets
	case Write:
		return "write"
	case Read:
		return "read"
	case Nothing:
		return "nothing"
	default:
		return "unknown"
	}
}

// MarshalText returns the name of the level.
func (l Level) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// ParseLevel returns the level of a name; "admin" and "can-become-admin" are short names of the two
// highest.
func ParseLevel(name string) (Level, error) {
	switch name {
	case "admin":
		return Admin, nil
	case "can-become-admin", "can-become-cluster-admin":
		return CanBecomeAdmin, nil
	}
	var known []string
	for _, level := range Levels() {
		if level.String() == name {
			return level, nil
		}
		known = append(known, fmt.Sprintf("%q", level))
	}
	return Unknown, fmt.Errorf("%q is not one of %s", name, strings.Join(known, ", "))
}

// Result is the reach of an account.
type Result struct {
	Level Level `json:"level"`
	// Findings say why, the most dangerous first; empty if it is Nothing.
	Findings []Finding `json:"findings,omitempty"`
}

// Finding is one thing that an account may do, with the grants that allow it.
type Finding struct {
	Level Level `json:"level"`
	// Reason identifies the row of the tables; the documentation lists them.
	Reason string `json:"reason"`
	// Text says what the account may do, for people.
	Text string `json:"text"`
	// Namespace is where; empty for all namespaces.
	Namespace string `json:"namespace,omitempty"`
	// Grants are the bindings that give it.
	Grants []Grant `json:"grants"`
}

// Reach returns what an account may do.
func (p *Policy) Reach(account Account) Result {
	grants := p.grants(account.User(), account.Groups())
	findings := plainFindings(grants)
	if !hasAdmin(grants) {
		findings = append(findings, p.tableFindings(account, grants)...)
		findings = append(findings, p.namedFindings(grants)...)
	}
	slices.SortStableFunc(findings, func(a, b Finding) int { return int(b.Level - a.Level) })
	result := Result{Level: Nothing, Findings: findings}
	if len(findings) > 0 {
		result.Level = findings[0].Level
	}
	if p.incomplete && result.Level != Admin {
		result.Level = Unknown
	}
	return result
}

// plainFindings are those of single grants: everything, some Secrets, writing and reading.
func plainFindings(grants []grant) []Finding {
	var found []Finding
	add := func(level Level, reason, text string, g grant) {
		for i := range found {
			if found[i].Reason == reason && found[i].Namespace == g.Namespace {
				found[i].Grants = append(found[i].Grants, g.Grant)
				return
			}
		}
		found = append(found, Finding{Level: level, Reason: reason, Text: text, Namespace: g.Namespace, Grants: []Grant{g.Grant}})
	}
	for _, g := range grants {
		switch {
		case g.facts.admin && g.Namespace == "":
			add(Admin, "everything", "may do everything", g)
		case g.facts.plain == Write:
			add(Write, "write", "may change objects", g)
		case g.facts.plain == Read:
			add(Read, "read", "may read objects", g)
		}
		if g.facts.namedSecrets {
			add(Secrets, "named-secrets", "may read single Secrets", g)
		}
	}
	return found
}

// tableFindings are the rows of the tables whose needs the grants fulfil.
func (p *Policy) tableFindings(self Account, grants []grant) []Finding {
	var found []Finding
	for m, mode := range p.tables.modes {
		if !slices.ContainsFunc(grants, func(g grant) bool { return g.facts.as&(1<<m) != 0 }) {
			continue
		}
		for _, row := range p.tables.cluster {
			if used := p.fulfil(grants, row, m, ""); used != nil {
				found = append(found, Finding{Level: row.level, Reason: row.id, Text: mode.describe(row.text), Grants: used})
			}
		}
		for _, namespace := range namespacesOf(grants) {
			for _, row := range p.tables.namespace {
				used := p.fulfil(grants, row, m, namespace)
				if used == nil || namespace != "" && onlyCluster(used) {
					continue // as for all namespaces
				}
				finding := Finding{Level: row.level, Reason: row.id, Text: mode.describe(row.text), Namespace: namespace, Grants: used}
				if via, known := p.danger(self, namespace, row.id); known {
					finding.Level = CanBecomeAdmin
					if via != (Account{}) {
						finding.Text += "; account " + via.String() + " can become cluster-admin"
					}
				}
				found = append(found, finding)
			}
		}
	}
	return found
}

// namespacesOf returns the namespaces in which something is granted, "" (all) first.
func namespacesOf(grants []grant) []string {
	namespaces := []string{""}
	for _, g := range grants {
		if g.Namespace != namespaces[len(namespaces)-1] { // they are sorted
			namespaces = append(namespaces, g.Namespace)
		}
	}
	return namespaces
}

func onlyCluster(grants []Grant) bool {
	return !slices.ContainsFunc(grants, func(g Grant) bool { return g.Namespace != "" })
}

// fulfil returns the grants that together fulfil the needs of a row in a namespace ("": in all), or
// nil.
func (p *Policy) fulfil(grants []grant, row row, m int, namespace string) []Grant {
	var used []Grant
	if p.tables.modes[m].prefix != "" {
		i := slices.IndexFunc(grants, func(g grant) bool { return g.holdsIn(namespace) && g.facts.as&(1<<m) != 0 })
		if i < 0 {
			return nil
		}
		used = append(used, grants[i].Grant)
	}
	for i, need := range row.needs {
		bit := uint64(1) << (row.firstNeed + i)
		i := slices.IndexFunc(grants, func(g grant) bool {
			return g.facts.needs[m]&bit != 0 && (need.anywhere || g.holdsIn(namespace))
		})
		if i < 0 {
			return nil
		}
		if g := grants[i].Grant; !slices.ContainsFunc(used, func(u Grant) bool { return u.String() == g.String() }) {
			used = append(used, g)
		}
	}
	return used
}

// holdsIn returns true if the grant holds in a namespace; for "", in all of them.
func (g grant) holdsIn(namespace string) bool { return g.Namespace == "" || g.Namespace == namespace }

func (m mode) describe(text string) string {
	if m.prefix == "" {
		return text
	}
	return text + ", while it acts as another user (constrained impersonation: " + m.name + ")"
}
