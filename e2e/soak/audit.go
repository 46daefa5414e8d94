package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

// lead is who holds the Lease of the controllers, by its IP address, and since when.
type lead struct {
	source string
	since  time.Time
}

const usersOfSakeeper = "system:serviceaccount:" + controlplane.Namespace + ":"

func bySakeeper(r controlplane.Request) bool {
	return strings.HasPrefix(r.User.Username, usersOfSakeeper)
}

// writes returns true for a request that changes an object, but not for those about the Lease and
// for events.
func writes(r controlplane.Request) bool {
	switch r.Object.Resource {
	case "leases", "events", "tokenreviews", "subjectaccessreviews", "selfsubjectaccessreviews":
		return false
	}
	return slices.Contains([]string{"create", "update", "patch", "delete", "deletecollection"}, r.Verb) && r.Object.Subresource != "token"
}

func succeeded(r controlplane.Request) bool { return r.Response.Code >= 200 && r.Response.Code < 300 }

func source(r controlplane.Request) string {
	if len(r.SourceIPs) == 0 {
		return ""
	}
	return r.SourceIPs[0]
}

func describe(r controlplane.Request) string {
	return fmt.Sprintf("%s %s at %s from %s by %s: %d", r.Verb, r.URI, r.Received.Format(time.RFC3339Nano), source(r), r.UserAgent, r.Response.Code)
}

// lies finds in the audit log and the events what must never happen.
func (c *checker) lies(ctx context.Context, w *world) (f findings) {
	mark, err := w.cp.Audit.Mark(ctx)
	if err != nil {
		return nil // asked again
	}
	requests, err := w.cp.Audit.Since(ctx, c.mark, bySakeeper)
	if err != nil {
		return nil
	}
	c.mark = mark
	f = c.inspect(requests, w.unleased)
	events, err := w.client.CoreV1().Events("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return f
	}
	for _, e := range events.Items {
		w.secrets.scan("event "+e.Name, []byte(e.Message+fmt.Sprint(e.Annotations)))
	}
	w.forAll(func(p *process) { w.secrets.scan("metrics of "+p.name, []byte(p.metrics(ctx))) })
	return f
}

// inspect finds requests that must not be.
func (c *checker) inspect(requests []controlplane.Request, unleased time.Time) (f findings) {
	for _, r := range requests {
		if r.Object.Resource == "leases" && r.Object.Name == api.ControllersLease && r.Verb != "get" && succeeded(r) && source(r) != c.lead.source {
			c.lead = lead{source(r), r.Staged}
		}
		if !writes(r) {
			continue
		}
		if r.User.Username == controlplane.Username && source(r) != c.lead.source && r.Received.After(c.lead.since) && r.Received.After(unleased) {
			f.add("leader", "%s, which does not hold the Lease (%s does, since %s)", describe(r), c.lead.source, c.lead.since.Format(time.RFC3339Nano))
		}
		if strings.HasPrefix(r.Object.Name, "foreign-") {
			f.add("foreign", "%s", describe(r))
		}
		if r.Verb == "delete" && r.Deletion.Preconditions.UID == "" || r.Verb == "deletecollection" {
			f.add("precondition", "%s, without a UID", describe(r))
		}
	}
	return f
}

// The bounds at rest.
const (
	restFor     = 6 * time.Second
	restChanges = 4  // of one object
	restReads   = 60 // of all processes, within restFor
	restMemory  = 250 << 20
)

// rest waits until sakeeper writes nothing, and asks for little. Since everything is right, it has no
// reason to change an object again and again.
func (c *checker) rest(ctx context.Context, w *world) (f findings, err error) {
	changes := map[string]int{}
	var last []controlplane.Request
	for deadline := time.Now().Add(c.guard); time.Now().Before(deadline) && len(f) == 0; {
		mark, err := w.cp.Audit.Mark(ctx)
		if err != nil {
			return nil, err
		}
		time.Sleep(restFor) // the requests of that time are what is counted
		last, err = w.cp.Audit.Since(ctx, mark, func(r controlplane.Request) bool { return bySakeeper(r) && r.Object.Resource != "leases" })
		if err != nil {
			return nil, err
		}
		isWrite := func(r controlplane.Request) bool { return writes(r) || r.Object.Subresource == "token" }
		if !slices.ContainsFunc(last, isWrite) && len(last) <= restReads {
			return w.footprint(ctx), nil
		}
		for _, r := range last {
			object := r.Object.Resource + " " + key(r.Object.Namespace, r.Object.Name)
			if writes(r) && succeeded(r) {
				changes[object]++
			}
			if changes[object] == restChanges {
				f.add("rest", "%s was changed %d times, and all was right: %s", object, restChanges, describe(r))
			}
		}
	}
	if len(f) == 0 {
		f.add("rest", "after %v, %d requests in %v: %v", c.guard, len(last), restFor, controlplane.Count(last))
	}
	return f, nil
}

// footprint finds processes that need too much memory.
func (w *world) footprint(ctx context.Context) (f findings) {
	w.forAll(func(p *process) {
		for line := range strings.Lines(p.metrics(ctx)) {
			var bytes float64
			if _, err := fmt.Sscanf(line, "process_resident_memory_bytes %g", &bytes); err == nil && bytes > restMemory {
				f.add("memory", "%s has %.0f MiB", p.name, bytes/(1<<20))
			}
		}
	})
	return f
}
