package main

import (
	"bytes"
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
	"slices"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

func pause(ctx context.Context, _ *world, s step) error {
	d, err := time.ParseDuration(s.arg(0) + "ms")
	if err != nil {
		return err
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// on returns the process of a step.
func (w *world) on(s step) (*process, error) {
	if p := w.processes[s.arg(0)]; p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("no such process: %s", s.arg(0))
}

func (w *world) send(s step, sig syscall.Signal) error {
	p, err := w.on(s)
	if err == nil {
		p.signal(sig)
	}
	return err
}

func kill(_ context.Context, w *world, s step) error    { return w.send(s, syscall.SIGKILL) }
func restart(_ context.Context, w *world, s step) error { return w.send(s, syscall.SIGTERM) }
func freeze(_ context.Context, w *world, s step) error  { return w.send(s, syscall.SIGSTOP) }
func thaw(_ context.Context, w *world, s step) error    { return w.send(s, syscall.SIGCONT) }

func cut(_ context.Context, w *world, s step) error {
	if p, err := w.on(s); err != nil || p.wire == nil {
		return err
	}
	w.processes[s.arg(0)].wire.Cut()
	return nil
}

func silence(_ context.Context, w *world, s step) error {
	if p, err := w.on(s); err != nil || p.wire == nil {
		return err
	}
	w.processes[s.arg(0)].wire.Silence()
	return nil
}

func heal(_ context.Context, w *world, s step) error {
	if p, err := w.on(s); err != nil || p.wire == nil {
		return err
	}
	w.processes[s.arg(0)].wire.Heal()
	return nil
}

func setClock(_ context.Context, w *world, s step) error {
	p, err := w.on(s)
	if err == nil {
		p.setClock(s.arg(1))
	}
	return err
}

func rotateKey(ctx context.Context, w *world, _ step) error {
	out, err := w.rotateKey(ctx)
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// ca is the file with the CA, and what was in it.
type ca struct {
	path   string
	server []byte
	// published are the contents that may be published, the last one of which must be.
	published []string
}

func (c *ca) good() []byte { return []byte(c.published[len(c.published)-1]) }

// write replaces the file. What verifies the API server must be published.
func (c *ca) write(bundle []byte) error {
	if bytes.Contains(bundle, c.server) && !slices.Contains(c.published, string(bundle)) {
		c.published = append(c.published, string(bundle))
	}
	next := c.path + ".next"
	if err := os.WriteFile(next, bundle, 0o600); err != nil {
		return err
	}
	return os.Rename(next, c.path)
}

func changeCA(_ context.Context, w *world, _ step) error {
	extra, err := newCA()
	if err != nil {
		return err
	}
	return w.ca.write(slices.Concat(w.ca.server, extra))
}

// foreignCA puts a CA in place that does not verify the API server. It must not be published.
func foreignCA(_ context.Context, w *world, _ step) error {
	bundle, err := newCA()
	if err != nil {
		return err
	}
	return w.ca.write(bundle)
}

func newCA() ([]byte, error) {
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: newName()},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, signer.Public(), signer)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), err
}

func killServer(ctx context.Context, w *world, _ step) error {
	return errors.Join(w.cp.KillServer(), w.cp.StartServer(ctx))
}

func freezeServer(ctx context.Context, w *world, _ step) error {
	pid := w.cp.ServerPID()
	err := syscall.Kill(pid, syscall.SIGSTOP)
	err = errors.Join(err, pause(ctx, w, step{"pause", "9000"}), syscall.Kill(pid, syscall.SIGCONT))
	// What a leader sent meanwhile arrives now, when another may have taken the Lease.
	w.unleased = time.Now().Add(5 * time.Second)
	return err
}

func killEtcd(ctx context.Context, w *world, _ step) error {
	if err := errors.Join(w.cp.KillEtcd(), pause(ctx, w, step{"pause", "1000"}), w.cp.StartEtcd()); err != nil {
		return err
	}
	return wait.PollUntilContextCancel(ctx, 200*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		return w.client.CoreV1().RESTClient().Get().AbsPath("/readyz").Timeout(5*time.Second).Do(ctx).Error() == nil, nil
	})
}

// saved is a copy of etcd, with what users had made until then.
type saved struct {
	dir   string
	model *model
}

// withoutEtcd does something while neither etcd nor the API server runs.
func (w *world) withoutEtcd(ctx context.Context, do func() error) error {
	// The signer must answer when the API server starts.
	w.processes["signer"].mend()
	return errors.Join(w.cp.KillServer(), w.cp.KillEtcd(), do(), w.cp.StartEtcd(), w.cp.StartServer(ctx))
}

func saveEtcd(ctx context.Context, w *world, _ step) error {
	next := saved{filepath.Join(w.dir, "etcd-"+newName()), w.model.clone()}
	if w.saved != nil {
		_ = os.RemoveAll(w.saved.dir)
	}
	w.saved = &next
	return w.withoutEtcd(ctx, func() error { return w.cp.SaveEtcd(next.dir) })
}

// restoreEtcd restores what was saved. Everything is started again after it, as the documentation of
// etcd and Kubernetes demands: what was seen in the future is no more.
func restoreEtcd(ctx context.Context, w *world, _ step) error {
	if w.saved == nil {
		return errors.New("nothing was saved")
	}
	w.model, w.filled = w.saved.model.clone(), map[string]string{}
	for _, p := range w.processes {
		if p.wire != nil {
			p.wire.Cut()
		}
	}
	err := errors.Join(w.stopManager(), w.withoutEtcd(ctx, func() error { return w.cp.RestoreEtcd(w.saved.dir) }), w.startManager())
	for _, p := range w.processes {
		if p.wire != nil {
			p.signal(syscall.SIGKILL)
			p.wire.Heal()
		}
	}
	w.unleased = time.Now().Add(10 * time.Second)
	return err
}
