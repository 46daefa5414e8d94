package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"github.com/sakeeper/sakeeper/hack/bench/load"
)

// The names of workloads.
const (
	namespaces    = "namespaces at once"
	secrets       = "token Secrets at once, "
	coldStart     = "cold start on unfilled Secrets"
	restart       = "restart on filled Secrets"
	references    = "referenced Secrets deleted"
	accounts      = "accounts deleted"
	accountsAlone = "accounts deleted, empty namespace"
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

// tokens runs the workloads with an RSA signing key.
func (s *session) tokens(ctx context.Context, c contestant) error {
	return s.on(ctx, rsa2048, func(b *testbed) error {
		n := s.size.objects
		if err := b.start(ctx, c, options{}); err != nil {
			return err
		}
		if err := s.measured(ctx, b, namespaces, load.Job{Kind: load.Namespaces, Prefix: "space", N: n}); err != nil {
			return err
		}
		if err := b.do(ctx, load.Job{Kind: load.Fill, Prefix: "fill", N: n, Spread: spread}); err != nil {
			return err
		}
		if err := s.starts(ctx, b, c); err != nil {
			return err
		}
		if err := s.measured(ctx, b, references, load.Job{Kind: load.DeleteReferenced, Prefix: "refs", N: 200}); err != nil {
			return err
		}
		return s.deleteAccounts(ctx, b, accounts, load.Job{Prefix: "gone", N: s.size.deleted, Spread: spread})
	})
}

// starts measures a cold start with as many unfilled Secrets as there are filled ones, and a
// restart with all of them filled.
func (s *session) starts(ctx context.Context, b *testbed, c contestant) error {
	b.stop()
	cold := load.Job{Kind: load.UnfilledSecrets, Prefix: "cold", N: s.size.objects, Spread: spread}
	if err := b.do(ctx, cold); err != nil {
		return err
	}
	cold.Kind = load.AwaitFill
	out, err := b.measure(ctx, cold, cold.N, func() error { return b.launch(c, options{}) })
	if err != nil {
		return fmt.Errorf("%s: %w", coldStart, err)
	}
	s.record(coldStart, c.name, out)

	b.stop()
	before, err := b.meters(ctx)
	if err != nil {
		return err
	}
	if err := b.launch(c, options{}); err != nil {
		return err
	}
	idle, err := b.running.waitIdle(ctx)
	if err != nil {
		return b.explain(err)
	}
	out = sample{last: idle.Sub(b.running.started).Seconds()}
	if err := b.readMeters(ctx, before, 2*s.size.objects, out); err != nil {
		return err
	}
	s.record(restart, c.name, out)
	return nil
}

// deleteAccounts measures how token Secrets are removed after their ServiceAccounts are
// deleted. Each account has one Secret.
func (s *session) deleteAccounts(ctx context.Context, b *testbed, workload string, job load.Job) error {
	job.Own = true
	for _, kind := range []string{load.Accounts, load.Fill} {
		job.Kind = kind
		if err := b.do(ctx, job); err != nil {
			return err
		}
	}
	job.Kind = load.DeleteAccounts
	return s.measured(ctx, b, workload, job)
}

// es256 runs the workloads with an ES256 signing key: another CA, and deletions beside many
// Secrets in one namespace.
func (s *session) es256(ctx context.Context, c contestant) error {
	return s.on(ctx, es256, func(b *testbed) error {
		if err := b.start(ctx, c, options{}); err != nil {
			return err
		}
		if err := s.newCA(ctx, b, c); err != nil {
			return err
		}
		if err := s.deleteAccounts(ctx, b, accountsAlone, load.Job{Prefix: "lone", N: s.size.deleted}); err != nil {
			return err
		}
		err := b.do(ctx, load.Job{Kind: load.FilledSecrets, Prefix: "others", Namespace: "crowd", N: s.size.crowd})
		if err != nil {
			return err
		}
		return s.deleteAccounts(ctx, b, accountsCrowd, load.Job{Prefix: "crowd", N: s.size.deleted})
	})
}

// newCA adds a certificate to the CA bundle. kube-controller-manager, which does not reload
// the file, is restarted.
func (s *session) newCA(ctx context.Context, b *testbed, c contestant) error {
	n := s.size.ca
	if err := b.do(ctx, load.Job{Kind: load.Fill, Prefix: "ca", N: n, Spread: n}); err != nil {
		return err
	}
	both := filepath.Join(b.dir, "both.crt")
	if err := writeBundle(both, b.caFile); err != nil {
		return err
	}
	out, err := b.measure(ctx, load.Job{Kind: load.NewCA, Prefix: "ca", N: n, CAFile: both}, 2*n, func() error {
		next := filepath.Join(b.dir, "next.crt")
		content, err := os.ReadFile(both)
		if err := errors.Join(err, os.WriteFile(next, content, 0o600), os.Rename(next, b.caFile)); err != nil {
			return err
		}
		if c.name == inTree.name {
			return b.launch(c, options{})
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("%s: %w", anotherCA, err)
	}
	s.record(anotherCA, c.name, out)
	return nil
}

// writeBundle writes the certificates of caFile and one more.
func writeBundle(path, caFile string) error {
	present, err := os.ReadFile(caFile)
	if err != nil {
		return err
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "another"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(present, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...), 0o600)
}

// fill measures the filling of token Secrets. The bare client only writes.
func (s *session) fill(ctx context.Context, c contestant) error {
	for _, signing := range []key{rsa2048, es256} {
		err := s.on(ctx, signing, func(b *testbed) error {
			if err := b.start(ctx, c, options{}); err != nil {
				return err
			}
			return s.measured(ctx, b, secrets+string(signing), load.Job{Kind: load.Fill, Prefix: "fill", N: s.size.objects, Spread: spread})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// limits measures with the default client rate limits.
func (s *session) limits(ctx context.Context, c contestant) error {
	return s.on(ctx, rsa2048, func(b *testbed) error {
		if err := b.start(ctx, c, options{defaults: true}); err != nil {
			return err
		}
		if err := s.measured(ctx, b, limitedSpaces, load.Job{Kind: load.Namespaces, Prefix: "space", N: s.size.limited}); err != nil {
			return err
		}
		return s.measured(ctx, b, limitedTokens, load.Job{Kind: load.Fill, Prefix: "fill", N: s.size.limited})
	})
}

// growth runs the same workloads with N, 2N and 4N objects.
func (s *session) growth(ctx context.Context, c contestant) error {
	for _, times := range []int{1, 2, 4} {
		err := s.on(ctx, es256, func(b *testbed) error {
			n := s.size.growth * times
			if err := b.start(ctx, c, options{}); err != nil {
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
		})
		if err != nil {
			return err
		}
	}
	return nil
}
