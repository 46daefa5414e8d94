package main

import (
	"context"
	"fmt"
	"time"

	"github.com/sakeeper/sakeeper/hack/bench/load"
)

// The names of what is measured once.
const (
	memoryEmpty     = "memory: empty"
	memoryUnrelated = "memory: unrelated Secrets and ConfigMaps"
	memoryTokens    = "memory: and token Secrets"
)

// rest is how long a contestant has had nothing to do when its memory is read.
const rest = 10 * time.Second

// memory reads what is resident, of a process that was started on what is there.
func (s *session) memory(ctx context.Context, c contestant) error {
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
	return s.on(ctx, es256, func(b *bed) error {
		for _, step := range steps {
			b.stop()
			for _, job := range step.jobs {
				if err := b.do(ctx, job); err != nil {
					return fmt.Errorf("%s: %w", step.name, err)
				}
			}
			if err := s.readMemory(ctx, b, step.name, c); err != nil {
				return fmt.Errorf("%s: %w", step.name, err)
			}
		}
		return nil
	})
}

func (s *session) readMemory(ctx context.Context, b *bed, workload string, c contestant) error {
	// What follows on new namespaces is not what is measured: the second process has
	// nothing to do.
	for range 2 {
		if err := b.start(ctx, c, options{}); err != nil {
			return err
		}
	}
	time.Sleep(rest)
	now, most, err := memory(b.running.pid)
	if err != nil {
		return err
	}
	s.record(workload, c.name, sample{resident: now, peak: most})
	return nil
}
