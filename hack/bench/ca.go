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
	"syscall"
	"time"

	"github.com/sakeeper/sakeeper/hack/bench/load"
)

// newCA adds a certificate to the CA bundle, another one in each turn.
// kube-controller-manager, which does not reload the file, is restarted.
func (s *session) newCA(ctx context.Context) error {
	n := s.size.ca
	return s.on(ctx, es256, func(b *testbed) error {
		both := filepath.Join(b.dir, "both.crt")
		// Installed files are replaced: the CA file of the API server stays as it is.
		present, err := os.ReadFile(b.caFile)
		if err != nil {
			return err
		}
		original := b.caFile
		b.caFile = filepath.Join(b.dir, "published.crt")
		if err := os.WriteFile(b.caFile, present, 0o600); err != nil {
			return err
		}
		if err := b.start(ctx, sakeeper, options{}); err != nil {
			return err
		}
		if err := b.do(ctx, load.Job{Kind: load.Fill, Prefix: "ca", N: n, Spread: n}); err != nil {
			return err
		}
		return s.inTurns(s.size.runs, withFloor, func(_ int, c contestant) error {
			if err := b.start(ctx, c, options{}); err != nil {
				return err
			}
			if err := writeBundle(both, original); err != nil {
				return err
			}
			return s.replaceCA(ctx, b, c, both)
		})
	})
}

// replaceCA measures until all objects have the CA of the file both.
func (s *session) replaceCA(ctx context.Context, b *testbed, c contestant, both string) error {
	n := s.size.ca
	out, err := b.measure(ctx, load.Job{Kind: load.NewCA, Prefix: "ca", N: n, CAFile: both}, 2*n, func() error {
		next := filepath.Join(b.dir, "next.crt")
		content, err := os.ReadFile(both)
		if err := errors.Join(err, os.WriteFile(next, content, 0o600), os.Rename(next, b.caFile)); err != nil {
			return err
		}
		switch c.name {
		case inTree.name:
			return b.launch(c, options{})
		case bare.name:
			return b.running.cmd.Process.Signal(syscall.SIGUSR1)
		default:
			return nil
		}
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
