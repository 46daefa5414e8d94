package main

import (
	"context"
	"fmt"
	"time"

	"github.com/sakeeper/sakeeper/hack/bench/load"
)

// The workloads of memory, which are measured once.
const (
	memoryEmpty     = "memory: empty"
	memoryUnrelated = "memory: unrelated Secrets and ConfigMaps"
	memoryTokens    = "memory: and token Secrets"
)

// memoryIdle is how long a contestant has been idle when its memory is read.
const memoryIdle = 10 * time.Second

// memory measures the memory of a process that was started when the objects existed.
func (s *session) memory(ctx context.Context) error {
	n := s.size.idle
	steps := []struct {
		name string
		jobs []load.Job
	}{
		{memoryEmpty, nil},
		{memoryUnrelated, []load.Job{
			{Kind: load.UnrelatedSecrets, Prefix: "secrets", N: n, Spread: 20},
			{Kind: load.UnrelatedConfigMaps, Prefix: "configs", N: n, Spread: 20},
		}},
		{memoryTokens, []load.Job{{Kind: load.FilledSecrets, Prefix: "tokens", N: n, Spread: spread}}},
	}
	return s.on(ctx, es256, func(b *testbed) error {
		for _, step := range steps {
			for _, job := range step.jobs {
				if err := b.do(ctx, job); err != nil {
					return fmt.Errorf("%s: %w", step.name, err)
				}
			}
			err := s.inTurns(1, both, func(_ int, c contestant) error { return s.readMemory(ctx, b, step.name, c) })
			if err != nil {
				return fmt.Errorf("%s: %w", step.name, err)
			}
			b.stop()
		}
		return nil
	})
}

func (s *session) readMemory(ctx context.Context, b *testbed, workload string, c contestant) error {
	// The first process handles what the new namespaces need. The second one, which has
	// nothing to do, is measured.
	for range 2 {
		if err := b.start(ctx, c, options{}); err != nil {
			return err
		}
	}
	time.Sleep(memoryIdle)
	now, most, err := memory(b.running.pid)
	if err != nil {
		return err
	}
	s.record(workload, c.name, sample{resident: now, peak: most})
	return nil
}
