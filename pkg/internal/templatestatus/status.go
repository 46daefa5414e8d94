// Package templatestatus has what the controllers share that write a part of the status of
// ServiceAccountTemplates: statuses are written at most once in 10 s, and name the first of many objects.
package templatestatus

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/cache"
)

const (
	// Delay is the time between a change and the statuses that tell of it, in which others join.
	Delay = time.Second
	// Interval is the shortest time between two statuses of a template.
	Interval = 10 * time.Second
	// firstNames is how many objects a condition names.
	firstNames = 5
)

// Pace bounds how often statuses are written. Its methods may be called concurrently.
type Pace struct {
	Clock    clock.PassiveClock
	Interval time.Duration

	mu   sync.Mutex
	last time.Time // when one was last written
}

// Wait returns how long no status may be written yet.
func (p *Pace) Wait() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	wait := p.Interval - p.Clock.Now().Sub(p.last)
	if wait > p.Interval { // the clock was set back
		return 0
	}
	return max(wait, 0)
}

// Write writes the statuses of templates: change returns the write of one that is not right, and nil
// otherwise. It returns the longest time after which to try again, and the first error.
func (p *Pace) Write(templates []*cache.Template, change func(*cache.Template) func() (time.Duration, error)) (requeueAfter time.Duration, err error) {
	for _, t := range templates {
		write := change(t)
		if write == nil {
			continue
		}
		p.mu.Lock()
		p.last = p.Clock.Now()
		p.mu.Unlock()
		again, failed := write()
		if requeueAfter = max(requeueAfter, again); err == nil {
			err = failed
		}
	}
	return requeueAfter, err
}

// Names are the first of some objects, with what is wrong with each, and how many there are.
type Names struct {
	first []string
	count int
}

// Add adds an object. The first by name are kept, whatever the order in which a cache lists them.
func (n *Names) Add(name string) {
	n.count++
	i, _ := slices.BinarySearch(n.first, name)
	n.first = slices.Insert(n.first, i, name)
	n.first = n.first[:min(len(n.first), firstNames)]
}

// Count returns how many there are.
func (n *Names) Count() int { return n.count }

func (n *Names) String() string {
	text := strings.Join(n.first, "; ")
	if more := n.count - len(n.first); more > 0 {
		text += fmt.Sprintf("; and %d more", more)
	}
	return text
}
