package rights

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/sakeeper/sakeeper/manifests"
)

const (
	// firstDelay is the time between the first two reviews of a right that is missing. It doubles
	// with each, up to maxDelay, which is also the time between two reviews of a right that is not.
	firstDelay = time.Second
	maxDelay   = 5 * time.Second
	// reportAfter is the number of reviews that must agree before a missing right is reported: a new
	// API server does not know all roles at once.
	reportAfter = 2
	// unreviewedFor is how long a 403 counts where reviews are refused. It is longer than the longest
	// delay between two tries of a controller.
	unreviewedFor = 10 * time.Minute
	// maxTargets bounds the refusals that are reviewed for one right, one per namespace. If Expect has
	// more targets, it is first reviewed whether the right is there for all namespaces.
	maxTargets = 8
	timeout    = 10 * time.Second
)

// Monitor knows the rights that were refused. Its methods may be called concurrently.
type Monitor struct {
	base    string // the path of the API server's URL
	roles   []string
	reviews reviewer
	report  func(right Right, text string)
	needed  func(right Right, target Target) bool
	wake    chan struct{}

	mu       sync.Mutex
	username string
	states   map[Right]*state // as many as there are kinds of requests in the program
}

// state is what is known about a right that was refused, or that is expected.
type state struct {
	targets []Target // to be reviewed, at most one per namespace
	where   func() []Target
	refused time.Time // the last response with code 403
	due     time.Time // of the next review

	missing  bool
	target   Target // for which it is missing
	reviews  int    // those in a row that said so
	reported bool
}

// Follow makes every client of config, which must be made after it, tell the monitor of its
// responses. Roles are the directories below manifests/rbac whose roles the process should have.
func Follow(config *rest.Config, roles ...string) (*Monitor, error) {
	base, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return nil, err
	}
	client, err := kubernetes.NewForConfig(rest.CopyConfig(config))
	if err != nil {
		return nil, err
	}
	m := newMonitor(base.Path, selfReviewer{client}, roles)
	config.Wrap(m.wrap)
	return m, nil
}

func newMonitor(base string, reviews reviewer, roles []string) *Monitor {
	return &Monitor{base: base, reviews: reviews, roles: roles, wake: make(chan struct{}, 1), states: map[Right]*state{}}
}

// OnMissing sets a function that Run calls with the text about a missing right, once until the right
// was there again. It is not called for the right to write events. Call it before Run.
func (m *Monitor) OnMissing(report func(text string)) {
	m.report = func(right Right, text string) {
		if right.Resource != "events" {
			report(text)
		}
	}
}

// OnlyWhile sets a function that returns false when a right that was refused is not needed any more, such
// as one in a namespace that is gone. It is called before each review. Call OnlyWhile before Run.
func (m *Monitor) OnlyWhile(needed func(right Right, target Target) bool) { m.needed = needed }

// Expect reviews a right that was not used yet, until it is there for all targets that where returns
// at a time. Where may be called until Run returns.
func (m *Monitor) Expect(right Right, where func() []Target) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state(right).where = where
	m.signal()
}

// Err returns an error that names the missing rights, or nil if none is known.
func (m *Monitor) Err() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var texts []string
	for right, s := range m.states {
		if s.missing {
			texts = append(texts, m.text(right, s.target))
		}
	}
	if len(texts) == 0 {
		return nil
	}
	slices.Sort(texts)
	return fmt.Errorf("missing rights: %s", strings.Join(texts, "; "))
}

// Run reviews rights that were refused until ctx ends, and returns nil then.
func (m *Monitor) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		due, next := m.due(time.Now())
		for _, right := range due {
			m.review(ctx, right)
		}
		if len(due) > 0 {
			continue
		}
		var after <-chan time.Time
		if !next.IsZero() {
			after = time.After(time.Until(next))
		}
		select {
		case <-ctx.Done():
		case <-m.wake:
		case <-after:
		}
	}
	return nil
}

// due returns the rights to review now, and when to review the next of the others; zero if there is
// none.
func (m *Monitor) due(now time.Time) (due []Right, next time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for right, s := range m.states {
		switch {
		case len(s.targets) == 0 && s.where == nil:
		case !s.due.After(now):
			due = append(due, right)
		case next.IsZero() || s.due.Before(next):
			next = s.due
		}
	}
	return due, next
}

// text is the sentence about a missing right. m.mu is held.
func (m *Monitor) text(right Right, target Target) string {
	text := "the user of this process"
	if m.username != "" {
		text = "the user " + m.username
	}
	text += " has no right to " + right.String()
	if target.Name != "" {
		text += " " + target.Name
	}
	if target.Namespace != "" {
		text += " in the namespace " + target.Namespace
	}
	// The roles are part of the program, and tests read all of them.
	if found, err := manifests.RolesWith(right.Verb, right.Group, right.resource(), m.roles); err == nil && len(found) > 0 {
		text += ", which the role in manifests/rbac/" + strings.Join(found, " or manifests/rbac/") + " has"
	}
	return text
}

// refused notes a response with the code 403.
func (m *Monitor) refused(right Right, target Target) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.state(right)
	s.refused = time.Now()
	here := func(t Target) bool { return t.Namespace == target.Namespace }
	if len(s.targets) < maxTargets && !slices.ContainsFunc(s.targets, here) {
		s.targets = append(s.targets, target)
		m.signal()
	}
}

// state returns that of a right, which it makes if there is none. m.mu is held.
func (m *Monitor) state(right Right) *state {
	s := m.states[right]
	if s == nil {
		s = &state{}
		m.states[right] = s
	}
	return s
}

// signal makes Run look what is due.
func (m *Monitor) signal() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}
