package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/sakeeper/sakeeper/hack/bench/load"
)

// The names of workloads.
const (
	namespaces    = "namespaces at once"
	secrets       = "token Secrets at once, "
	coldStart     = "cold start on unfilled Secrets"
	references    = "referenced Secrets deleted"
	manyReferred  = "referenced Secrets of as many accounts deleted"
	withAccounts  = "Secrets made with their accounts"
	accounts      = "accounts deleted"
	accountsCrowd = "accounts deleted, full namespace"
	anotherCA     = "another CA"
	limitedSpaces = "default limits: namespaces"
	limitedTokens = "default limits: token Secrets"
	growing       = "growth of "
)

// spread is the number of namespaces for Secrets that are created at once.
const spread = 100

// on calls do with a new testbed.
func (s *session) on(ctx context.Context, signing key, do func(b *testbed) error) error {
	return s.onControlPlane(ctx, signing, false, do)
}

// onControlPlane calls do with a new testbed, with or without the in-tree admission plugin.
func (s *session) onControlPlane(ctx context.Context, signing key, podAdmission bool, do func(b *testbed) error) (err error) {
	b, err := s.newTestbed(ctx, signing, podAdmission)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	return do(b)
}

// measured measures a job, and records the sample for workload.
func (s *session) measured(ctx context.Context, b *testbed, workload string, job load.Job) error {
	out, err := b.measure(ctx, job, job.N, nil)
	if err != nil {
		return fmt.Errorf("%s: %w", workload, err)
	}
	s.record(workload, b.contestant.name, out)
	return nil
}

// namespaces measures new namespaces. Those of earlier turns stay.
func (s *session) namespaces(ctx context.Context) error {
	return s.on(ctx, es256, func(b *testbed) error {
		return s.inTurns(s.size.runs, withFloor, func(turn int, c contestant) error {
			if err := b.start(ctx, c, options{}); err != nil {
				return err
			}
			return s.measured(ctx, b, namespaces, load.Job{Kind: load.Namespaces, Prefix: c.prefix(turn, "space"), N: s.size.objects})
		})
	})
}

// tokens runs the workloads with an RSA signing key: filling, and a start on unfilled Secrets.
func (s *session) tokens(ctx context.Context) error {
	return s.on(ctx, rsa2048, func(b *testbed) error {
		return s.inTurns(s.size.runs, withFloor, func(_ int, c contestant) error {
			if err := b.start(ctx, c, options{}); err != nil {
				return err
			}
			if err := s.fill(ctx, b, rsa2048); err != nil {
				return err
			}
			return s.coldStart(ctx, b, c)
		})
	})
}

// fill measures the filling of token Secrets, and deletes them. It stops the contestant.
func (s *session) fill(ctx context.Context, b *testbed, signing key) error {
	job := load.Job{Kind: load.Fill, Prefix: "fill", N: s.size.objects, Spread: spread}
	if err := s.measured(ctx, b, secrets+string(signing), job); err != nil {
		return err
	}
	return b.clear(ctx, job)
}

// clear stops the contestant, and deletes the Secrets of job, so that the next contestant finds
// what this one did.
func (b *testbed) clear(ctx context.Context, job load.Job) error {
	b.stop()
	job.Kind = load.Clear
	return b.do(ctx, job)
}

// coldStart measures a start on unfilled Secrets.
func (s *session) coldStart(ctx context.Context, b *testbed, c contestant) error {
	cold := load.Job{Kind: load.UnfilledSecrets, Prefix: "fill", N: s.size.objects, Spread: spread}
	if err := b.do(ctx, cold); err != nil {
		return err
	}
	cold.Kind = load.AwaitFill
	out, err := b.measure(ctx, cold, cold.N, func() error { return b.launch(c, options{}) })
	if err != nil {
		return fmt.Errorf("%s: %w", coldStart, err)
	}
	s.record(coldStart, c.name, out)
	return b.clear(ctx, cold)
}

// deleteAccounts measures how token Secrets are removed after their ServiceAccounts are
// deleted. Each account has one Secret.
func (s *session) deleteAccounts(ctx context.Context, b *testbed, workload string, job load.Job) error {
	if err := b.createOwn(ctx, &job); err != nil {
		return err
	}
	job.Kind = load.DeleteAccounts
	return s.measured(ctx, b, workload, job)
}

// createOwn creates accounts with a filled Secret each.
func (b *testbed) createOwn(ctx context.Context, job *load.Job) error {
	job.Own = true
	for _, kind := range []string{load.Accounts, load.Fill} {
		job.Kind = kind
		if err := b.do(ctx, *job); err != nil {
			return err
		}
	}
	return nil
}

// es256 runs the workloads with an ES256 signing key: filling, and what follows deletions.
func (s *session) es256(ctx context.Context) error {
	return s.on(ctx, es256, func(b *testbed) error {
		return s.inTurns(s.size.runs, withFloor, func(turn int, c contestant) error {
			if err := b.start(ctx, c, options{}); err != nil {
				return err
			}
			if err := s.fill(ctx, b, es256); err != nil {
				return err
			}
			if err := b.start(ctx, c, options{}); err != nil {
				return err
			}
			return s.deletions(ctx, b, turn, c)
		})
	})
}

// deletions measures bursts of accounts, of their Secrets, and of deletions of both.
func (s *session) deletions(ctx context.Context, b *testbed, turn int, c contestant) error {
	n := s.size.deleted
	own := load.Job{Kind: load.FillWithAccounts, Prefix: c.prefix(turn, "gone"), N: n, Spread: spread, Own: true}
	if err := s.measured(ctx, b, withAccounts, own); err != nil {
		return err
	}
	own.Kind = load.DeleteAccounts
	if err := s.measured(ctx, b, accounts, own); err != nil {
		return err
	}
	many := load.Job{Prefix: c.prefix(turn, "many"), N: n, Spread: spread}
	if err := b.createOwn(ctx, &many); err != nil {
		return err
	}
	many.Kind = load.ReferencesOfMany
	if err := s.measured(ctx, b, manyReferred, many); err != nil {
		return err
	}
	return s.measured(ctx, b, references, load.Job{Kind: load.DeleteReferenced, Prefix: c.prefix(turn, "refs"), N: 200})
}

// crowd measures the deletion of accounts in a namespace with many other Secrets.
func (s *session) crowd(ctx context.Context) error {
	return s.on(ctx, es256, func(b *testbed) error {
		if err := b.do(ctx, load.Job{Kind: load.FilledSecrets, Prefix: "others", Namespace: "crowd", N: s.size.crowd}); err != nil {
			return err
		}
		return s.inTurns(1, withFloor, func(turn int, c contestant) error {
			if err := b.start(ctx, c, options{}); err != nil {
				return err
			}
			return s.deleteAccounts(ctx, b, accountsCrowd, load.Job{Prefix: c.prefix(turn, "gone"), Namespace: "crowd", N: s.size.deleted})
		})
	})
}

// limits measures with the default client rate limits.
func (s *session) limits(ctx context.Context) error {
	return s.on(ctx, rsa2048, func(b *testbed) error {
		return s.inTurns(1, both, func(turn int, c contestant) error {
			if err := b.start(ctx, c, options{defaults: true}); err != nil {
				return err
			}
			if err := s.measured(ctx, b, limitedSpaces, load.Job{Kind: load.Namespaces, Prefix: c.prefix(turn, "space"), N: s.size.limited}); err != nil {
				return err
			}
			return s.measured(ctx, b, limitedTokens, load.Job{Kind: load.Fill, Prefix: c.prefix(turn, "fill"), N: s.size.limited})
		})
	})
}

// growth runs the same workloads with N, 2N and 4N objects, each on a new control plane.
func (s *session) growth(ctx context.Context) error {
	for range s.size.runs {
		for _, times := range []int{1, 2, 4} {
			if err := s.on(ctx, es256, func(b *testbed) error { return s.grown(ctx, b, s.size.growth*times) }); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *session) grown(ctx context.Context, b *testbed, n int) error {
	if err := b.start(ctx, sakeeper, options{}); err != nil {
		return err
	}
	suffix := fmt.Sprintf(", %d", n)
	if err := s.measured(ctx, b, growing+namespaces+suffix, load.Job{Kind: load.Namespaces, Prefix: "space", N: n}); err != nil {
		return err
	}
	if err := s.measured(ctx, b, growing+secrets+string(es256)+suffix, load.Job{Kind: load.Fill, Prefix: "fill", N: n, Spread: spread}); err != nil {
		return err
	}
	return s.deleteAccounts(ctx, b, growing+accounts+suffix, load.Job{Prefix: "gone", N: n, Spread: spread})
}
