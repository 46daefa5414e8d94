package main

import (
	"context"
	"strings"
	"time"

	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// meters are the counters that are read before and after a job.
type meters struct {
	own, server time.Duration
	pid         int
	mark        controlplane.Mark
}

func (b *testbed) meters(ctx context.Context) (m meters, err error) {
	if m.mark, err = b.controlPlane.Audit.Mark(ctx); err != nil {
		return m, err
	}
	if b.running != nil {
		m.pid = b.running.pid
		if m.own, err = cpu(m.pid); err != nil {
			return m, err
		}
	}
	m.server, err = cpu(b.controlPlane.ServerPID())
	return m, err
}

// readMeters adds to out what was used since before. A contestant that was started in between
// counts from its start.
func (b *testbed) readMeters(ctx context.Context, before meters, objects int, out sample) error {
	after, err := b.meters(ctx)
	if err != nil {
		return err
	}
	if after.pid != before.pid {
		before.own = 0
	}
	out[ownCPU] = ms(after.own-before.own) / float64(objects)
	out[serverCPU] = ms(after.server-before.server) / float64(objects)
	requests, err := b.controlPlane.Audit.Since(ctx, before.mark, func(r controlplane.Request) bool {
		return strings.HasPrefix(r.UserAgent, b.contestant.userAgent) && r.Verb != "watch" && r.Object.Resource != "leases" && r.Object.Resource != "events"
	})
	if err != nil {
		return err
	}
	_, out[peak], err = memory(after.pid)
	out[requestsPer], out[writes] = float64(len(requests))/float64(objects), 0
	for what, n := range controlplane.Count(requests) {
		out[requested+what] = float64(n) / float64(objects)
	}
	for _, r := range requests {
		if r.Verb != "get" && r.Verb != "list" {
			out[writes]++
		}
	}
	return err
}
