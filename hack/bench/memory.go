package main

import (
	"context"
	"errors"
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
func (s *session) memory(ctx context.Context, c contestant) (err error) {
	b, err := s.newBed(ctx, es256, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	n := s.size.idle
	for _, step := range []struct {
		name string
		jobs []load.Job
	}{
		{memoryEmpty, nil},
		{memoryUnrelated, []load.Job{
			{Kind: load.UnrelatedSecrets, Prefix: "secrets", N: n, Spread: 20},
			{Kind: load.UnrelatedConfigMaps, Prefix: "configs", N: n, Spread: 20},
		}},
		{memoryTokens, []load.Job{{Kind: load.FilledSecrets, Prefix: "tokens", N: n, Spread: spread}}},
	} {
		b.stop()
		for _, job := range step.jobs {
			if err := b.do(ctx, job); err != nil {
				return fmt.Errorf("%s: %w", step.name, err)
			}
		}
		// What follows on new namespaces is not what is measured.
		if err := b.start(ctx, c, options{}); err != nil {
			return err
		}
		if err := b.start(ctx, c, options{}); err != nil {
			return err
		}
		time.Sleep(rest)
		out := sample{}
		if out[resident], out[peak], err = memory(b.running.pid); err != nil {
			return err
		}
		s.record(step.name, c.name, out)
	}
	return nil
}
