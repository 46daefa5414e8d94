package main

import (
	"context"
	"fmt"

	"github.com/sakeeper/sakeeper/hack/bench/load"
)

// The workloads of 5 events a second. Their times begin when the API server has answered, but
// for pods: with the request.
const (
	singleSpace   = "one at a time: namespace"
	singleToken   = "one at a time: token Secret"
	singleAccount = "one at a time: account deleted"
	singleRepair  = "one at a time: damaged ConfigMap"
	singlePod     = "one at a time: pod"
)

// single measures the latency of single events. All contestants share a control plane.
func (s *session) single(ctx context.Context) error {
	n := s.size.single
	return s.on(ctx, es256, func(b *testbed) error {
		return s.inTurns(s.size.runs, withFloor, func(turn int, c contestant) error {
			if err := b.start(ctx, c, options{}); err != nil {
				return err
			}
			space := load.Job{Kind: load.PacedNamespaces, Prefix: c.prefix(turn, "space"), N: n}
			if err := s.latency(ctx, b, singleSpace, space); err != nil {
				return err
			}
			token := load.Job{Kind: load.PacedSecrets, Prefix: c.prefix(turn, "token"), N: n, Spread: n}
			if err := s.latency(ctx, b, singleToken, token); err != nil {
				return err
			}
			token.Kind = load.PacedRepairs // of the ConfigMaps beside the Secrets
			if err := s.latency(ctx, b, singleRepair, token); err != nil {
				return err
			}
			gone := load.Job{Prefix: c.prefix(turn, "gone"), N: n, Spread: n}
			if err := b.createOwn(ctx, &gone); err != nil {
				return err
			}
			gone.Kind = load.PacedDeletions
			if err := s.latency(ctx, b, singleAccount, gone); err != nil {
				return err
			}
			return b.clear(ctx, token)
		})
	})
}

// latency records what a paced job measures; its rate is given.
func (s *session) latency(ctx context.Context, b *testbed, workload string, job load.Job) error {
	out, err := b.measure(ctx, job, job.N, nil)
	if err != nil {
		return fmt.Errorf("%s: %w", workload, err)
	}
	s.record(workload, b.contestant.name, out.only(p50, p99, ownCPU, serverCPU, requestsPer))
	return nil
}
