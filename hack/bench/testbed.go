package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/sakeeper/sakeeper/hack/bench/load"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

// testbed is a control plane on which contestants run one after the other.
type testbed struct {
	controlPlane    *controlplane.ControlPlane
	dir, kubeconfig string
	keyFile, caFile string
	sakeeper        string // path of the binary
	contestant      contestant
	running         *process
	reviewer        *process // the webhook for pods; nil: none runs
	timeout         time.Duration
	patience        time.Duration // until a contestant is idle; zero: that of a process
	parallel        int
}

// key is the algorithm of the signing key.
type key string

const (
	rsa2048 key = "RSA-2048"
	es256   key = "ES256"
)

// newTestbed starts a control plane whose API server accepts keys of both algorithms.
func (s *session) newTestbed(ctx context.Context, signing key, podAdmission bool) (*testbed, error) {
	return s.testbedWith(ctx, signing, controlplane.Options{PodAdmission: podAdmission})
}

func (s *session) testbedWith(ctx context.Context, signing key, o controlplane.Options) (*testbed, error) {
	dir, err := os.MkdirTemp(s.dir, "control-plane-")
	if err == nil {
		err = os.Mkdir(filepath.Join(dir, "logs"), 0o700)
	}
	if err != nil {
		return nil, err
	}
	ec := filepath.Join(dir, "es256.key")
	if _, err := testkit.WriteECKey(ec); err != nil {
		return nil, err
	}
	o.Dir, o.MoreKeyFiles, o.AuditAnswersOnly = dir, []string{ec}, true
	cp, err := controlplane.Start(o)
	if err != nil {
		return nil, err
	}
	b := &testbed{controlPlane: cp, dir: dir, keyFile: cp.SigningKeyFile, caFile: cp.CAFile, sakeeper: s.sakeeper, timeout: 5 * time.Minute, parallel: s.size.parallel}
	if signing == es256 {
		b.keyFile = ec
	}
	if b.kubeconfig, err = cp.Kubeconfig("bench.kubeconfig", cp.Admin); err != nil {
		return nil, errors.Join(err, cp.Stop())
	}
	if err := cp.Install(ctx); err != nil {
		return nil, errors.Join(err, cp.Stop())
	}
	return b, nil
}

func (b *testbed) close() error {
	b.stop()
	return errors.Join(b.controlPlane.Stop(), os.RemoveAll(b.dir))
}

// start starts a contestant and waits until it is idle.
func (b *testbed) start(ctx context.Context, c contestant, o options) error {
	if err := b.launch(c, o); err != nil {
		return err
	}
	return b.waitIdle(ctx)
}

// logFile is not beside the keys: who watches their directory would be told of every line.
func (b *testbed) logFile() string { return filepath.Join(b.dir, "logs", "contestant.log") }

// launch stops the contestant that runs, and starts c.
func (b *testbed) launch(c contestant, o options) error {
	b.stop()
	cmd, err := c.command(b, o)
	if err != nil {
		return err
	}
	b.contestant = c
	b.running, err = startProcess(cmd, b.logFile())
	if err == nil && b.patience > 0 {
		b.running.patience = b.patience
	}
	return err
}

func (b *testbed) stop() {
	if b.running != nil {
		b.running.stop()
		b.running = nil
	}
}

func (b *testbed) waitIdle(ctx context.Context) error {
	_, err := b.running.waitIdle(ctx)
	return b.explain(err)
}

// explain adds the end of the contestant's log to err.
func (b *testbed) explain(err error) error {
	if err == nil {
		return nil
	}
	log, _ := os.ReadFile(b.logFile())
	return fmt.Errorf("%s: %w; the end of its log:\n%s", b.contestant.name, err, log[max(0, len(log)-2000):])
}

// loader is a process that is ready to begin a job.
type loader struct {
	cmd    *exec.Cmd
	begin  func() error
	output *bufio.Reader
	errors *bytes.Buffer
}

// prepare starts a process for job, and returns when it is ready. The process ends with ctx.
func (b *testbed) prepare(ctx context.Context, job load.Job) (*loader, error) {
	job.Kubeconfig, job.Timeout = b.kubeconfig, b.timeout
	if job.Parallel == 0 {
		job.Parallel = b.parallel
	}
	if job.KeyFile == "" {
		job.KeyFile = b.keyFile
	}
	if job.CAFile == "" {
		job.CAFile = b.caFile
	}
	text, err := json.Marshal(job)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	l := &loader{cmd: exec.CommandContext(ctx, self, "load"), errors: &bytes.Buffer{}}
	l.cmd.Stderr = l.errors
	in, err1 := l.cmd.StdinPipe()
	out, err2 := l.cmd.StdoutPipe()
	if err := errors.Join(err1, err2, l.cmd.Start()); err != nil {
		return nil, err
	}
	l.output = bufio.NewReader(out)
	l.begin = func() error {
		_, err := fmt.Fprintln(in, "go")
		return err
	}
	if _, err := fmt.Fprintf(in, "%s\n", text); err != nil {
		return nil, l.failed(err)
	}
	if line, err := l.output.ReadString('\n'); err != nil || strings.TrimSpace(line) != "ready" {
		return nil, l.failed(err)
	}
	return l, nil
}

func (l *loader) failed(err error) error {
	return errors.Join(err, l.cmd.Wait(), errors.New(strings.TrimSpace(l.errors.String())))
}

// result waits for the result of the job.
func (l *loader) result() (load.Result, error) {
	var r load.Result
	line, err := l.output.ReadBytes('\n')
	if err != nil {
		return r, l.failed(err)
	}
	return r, errors.Join(json.Unmarshal(line, &r), l.cmd.Wait())
}

// do runs a job without measuring it, and waits until the contestant, if one runs, is idle.
func (b *testbed) do(ctx context.Context, job load.Job) error {
	if _, err := b.result(ctx, job); err != nil || b.running == nil {
		return b.explain(err)
	}
	return b.waitIdle(ctx)
}

// result runs a job, and returns what it measured itself.
func (b *testbed) result(ctx context.Context, job load.Job) (load.Result, error) {
	ctx, end := context.WithCancel(ctx)
	defer end()
	l, err := b.prepare(ctx, job)
	if err != nil {
		return load.Result{}, err
	}
	if err := l.begin(); err != nil {
		return load.Result{}, l.failed(err)
	}
	return l.result()
}

// measure runs a job, and measures it, the contestant and the API server. begin, unless it is
// nil, is called right after the job has begun.
func (b *testbed) measure(ctx context.Context, job load.Job, objects int, begin func() error) (sample, error) {
	ctx, end := context.WithCancel(ctx)
	defer end()
	l, err := b.prepare(ctx, job)
	if err != nil {
		return nil, err
	}
	if b.running != nil {
		if err := b.waitIdle(ctx); err != nil {
			return nil, err
		}
	}
	before, err := b.meters(ctx)
	if err != nil {
		return nil, err
	}
	reviewed, err := b.reviewer.used()
	if err != nil {
		return nil, err
	}
	began := time.Now()
	if err := l.begin(); err != nil {
		return nil, l.failed(err)
	}
	if begin != nil {
		if err := begin(); err != nil {
			return nil, err
		}
	}
	r, err := l.result()
	if err != nil {
		return nil, b.explain(err)
	}
	if err := b.waitIdle(ctx); err != nil {
		return nil, err
	}
	out := sample{}
	elapsed := r.Elapsed
	if begin != nil {
		elapsed = r.Ended.Sub(began)
	}
	out[rate] = float64(objects) / elapsed.Seconds()
	out[last] = elapsed.Seconds()
	if job.Kind == load.AwaitFill && begin != nil {
		out[first] = (r.First - (r.Elapsed - elapsed)).Seconds()
	}
	if r.P50 > 0 {
		out[p50], out[p99] = ms(r.P50), ms(r.P99)
	}
	if job.Kind == load.DeleteReferenced {
		out[left] = float64(r.Left)
	}
	if b.reviewer != nil {
		used, err := b.reviewer.used()
		if err != nil {
			return nil, err
		}
		out[reviewerCPU] = ms(used-reviewed) / float64(objects)
	}
	return out, b.readMeters(ctx, before, objects, out)
}
