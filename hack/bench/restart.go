package main

import (
	"context"
	"fmt"
	"syscall"
	"time"

	"github.com/sakeeper/sakeeper/hack/bench/load"
)

// restarting begins the workloads of restarts.
const restarting = "restart beside "

// restartOn is the workload of a restart beside n filled Secrets.
func restartOn(n int) string { return fmt.Sprintf("%s%d filled Secrets", restarting, n) }

// restart measures from the start of a process until a Secret that was created right before is
// filled. Both contestants find the same Secrets.
func (s *session) restart(ctx context.Context) error {
	return s.on(ctx, es256, func(b *testbed) error {
		b.timeout = 20 * time.Minute // for 100,000 Secrets
		present := 0
		for i, n := range []int{s.size.filled, s.size.many} {
			job := load.Job{Kind: load.FilledSecrets, Prefix: fmt.Sprintf("old%d", i), N: n - present, Spread: spread}
			if err := b.do(ctx, job); err != nil {
				return err
			}
			present = n
			if err := b.start(ctx, sakeeper, options{}); err != nil { // the new namespaces
				return err
			}
			err := s.inTurns(s.size.runs, both, func(turn int, c contestant) error {
				b.stop()
				job := load.Job{Kind: load.Fill, Prefix: c.prefix(turn, fmt.Sprintf("new%d", i)), Namespace: "old0-0000", N: 1}
				out, err := b.measure(ctx, job, job.N, func() error { return b.launch(c, options{}) })
				if err != nil {
					return fmt.Errorf("%s: %w", restartOn(n), err)
				}
				s.record(restartOn(n), c.name, out.only(last, ownCPU, writes, peak))
				return nil
			})
			if err != nil {
				return err
			}
			b.stop()
		}
		return nil
	})
}

// The workloads of two replicas, one of which leads.
const (
	leaderStopped = "take-over: leader stopped"
	leaderKilled  = "take-over: leader killed"
	leaderFrozen  = "take-over: leader frozen"
)

// takeover measures from a signal to the leader until the other replica serves a namespace.
func (s *session) takeover(ctx context.Context) error {
	lease := time.Duration(s.size.lease) * time.Second
	return s.on(ctx, es256, func(b *testbed) error {
		for _, end := range []struct {
			workload string
			signal   syscall.Signal
			runs     int
		}{{leaderStopped, syscall.SIGTERM, s.size.runs}, {leaderKilled, syscall.SIGKILL, 1}, {leaderFrozen, syscall.SIGSTOP, 1}} {
			err := s.inTurns(end.runs, both, func(turn int, c contestant) error {
				out, err := b.replaceLeader(ctx, c, options{lease: lease}, end.signal, c.prefix(turn, fmt.Sprintf("over%d", end.signal)))
				if err != nil {
					return fmt.Errorf("%s: %w", end.workload, err)
				}
				if end.signal != syscall.SIGTERM {
					out[afterLease] = out[last] - lease.Seconds()
				}
				s.record(end.workload, c.name, out)
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// replaceLeader starts a leader and a replica that waits, and sends signal to the leader.
func (b *testbed) replaceLeader(ctx context.Context, c contestant, o options, signal syscall.Signal, prefix string) (sample, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := b.launch(c, o); err != nil {
		return nil, err
	}
	if _, err := b.result(ctx, load.Job{Kind: load.TakeOver, Prefix: prefix + "-first"}); err != nil { // it leads
		return nil, b.explain(err)
	}
	leader := b.running
	b.running = nil // launch would stop it
	defer leader.kill()
	if err := b.launch(c, o); err != nil {
		return nil, err
	}
	defer b.stop()
	if err := b.waitIdle(ctx); err != nil {
		return nil, err
	}
	time.Sleep(2 * time.Second) // the replica has seen the Lease
	l, err := b.prepare(ctx, load.Job{Kind: load.TakeOver, Prefix: prefix})
	if err != nil {
		return nil, err
	}
	began := time.Now()
	if err := leader.cmd.Process.Signal(signal); err != nil {
		return nil, err
	}
	if signal == syscall.SIGTERM { // until it has ended, it may serve
		<-leader.exited
	}
	if err := l.begin(); err != nil {
		return nil, l.failed(err)
	}
	r, err := l.result()
	if err != nil {
		return nil, b.explain(err)
	}
	return sample{last: r.Ended.Sub(began).Seconds()}, nil
}
