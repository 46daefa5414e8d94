package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/sakeeper/sakeeper/hack/bench/load"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

// What is measured with a number of namespaces.
const (
	scaleCreated = "created"
	scaleStart   = "start"
	scaleCA      = "another CA"
	scaleSpace   = "one namespace"
	scaleToken   = "one token Secret"
	scaleAccount = "one account deleted"
)

// Metrics that are sums, for exponents of growth.
const (
	totalTime = "s in all"
	totalCPU  = "CPU s in all"
)

const (
	// secretsPerNamespace: each tenth namespace has a token Secret.
	namespacesPerSecret = 10
	// scaleEvents of each kind, 5 a second, show what one event costs.
	scaleEvents = 20
	// bytesPerNamespace is what a namespace takes on the disk, with the write-ahead log and the
	// audit log.
	bytesPerNamespace = 40 << 10
	// minutesPerTenThousand namespaces, for both contestants.
	minutesPerTenThousand = 4
	etcdQuota             = 8 << 30
)

func scaleOn(n int, what string) string { return fmt.Sprintf("%d namespaces: %s", n, what) }

// scale measures both contestants, each on a control plane of its own, with n/16, n/4 and n
// namespaces. Those of a step stay in the next.
func scale(ctx context.Context, args []string) (err error) {
	flags := flag.NewFlagSet("scale", flag.ContinueOnError)
	n := flags.Int("n", 100000, "namespaces of the last step; those before have a sixteenth and a quarter")
	jsonFile := flags.String("json", "", "a file for everything that was measured")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *n < 16*namespacesPerSecret {
		return fmt.Errorf("-n: %d is less than %d", *n, 16*namespacesPerSecret)
	}
	root, err := controlplane.RepositoryRoot()
	if err != nil {
		return err
	}
	s := &session{sakeeper: filepath.Join(root, "bin/sakeeper"), size: size{parallel: 50}, results: results{}, began: time.Now()}
	if s.dir, err = os.MkdirTemp("", "sakeeper-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(s.dir)) }()
	if err := announce(s.dir, *n); err != nil {
		return err
	}
	steps := []int{*n / 16, *n / 4, *n}
	for _, c := range both {
		if failed := s.grow(ctx, c, steps); failed != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", c.name, failed))
			s.progress("%s: %v", c.name, failed)
		}
	}
	fmt.Printf("\n%s, %s, up to %d namespaces, %v\n\n", machine(), s.began.Format(time.DateOnly), *n, time.Since(s.began).Round(time.Second))
	s.results.print(os.Stdout, scaleGoals(steps))
	if *jsonFile != "" {
		err = errors.Join(err, s.results.write(*jsonFile, map[string]any{"machine": machine(), "began": s.began, "namespaces": *n}))
	}
	return err
}

// announce says how long it takes and how much disk it needs, and returns an error if that is not free.
func announce(dir string, n int) error {
	var disk syscall.Statfs_t
	if err := syscall.Statfs(dir, &disk); err != nil {
		return err
	}
	need, free := uint64(n)*bytesPerNamespace, disk.Bavail*uint64(disk.Bsize)
	fmt.Fprintf(os.Stderr, "This takes about %d minutes on 2 CPUs, and up to %d MiB of the disk of %s.\n", 5+n*minutesPerTenThousand/10000, need>>20, dir)
	if free < need {
		return fmt.Errorf("%s has %d MiB free, and %d are needed: name another directory by TMPDIR, or fewer namespaces by -n", dir, free>>20, need>>20)
	}
	return nil
}

// grow measures a contestant at each step.
func (s *session) grow(ctx context.Context, c contestant, steps []int) (err error) {
	b, err := s.testbedWith(ctx, es256, controlplane.Options{EtcdQuota: etcdQuota})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	b.timeout, b.patience = time.Hour, time.Hour
	original := b.caFile
	b.caFile = filepath.Join(b.dir, "published.crt")
	if err := copyFile(original, b.caFile); err != nil {
		return err
	}
	present, sum := 0, sample{}
	for _, n := range steps {
		s.progress("%s, %d namespaces", c.name, n)
		if err := s.growTo(ctx, b, c, growth{from: present, to: n, sum: sum, ca: original}); err != nil {
			return err
		}
		present = n
	}
	return nil
}

// growth is a step: the sums are those of the steps so far.
type growth struct {
	from, to int
	sum      sample
	ca       string
}

func (s *session) growTo(ctx context.Context, b *testbed, c contestant, g growth) error {
	for _, measure := range []func(context.Context, *testbed, contestant, growth) error{s.scaleCreate, s.scaleRestart, s.scaleSingle, s.scaleChangeCA} {
		if err := measure(ctx, b, c, g); err != nil {
			return err
		}
	}
	b.stop()
	return nil
}

// scaleCreate creates the namespaces of a step, and then the Secrets of each tenth, which are in
// namespaces of their own.
func (s *session) scaleCreate(ctx context.Context, b *testbed, c contestant, g growth) error {
	if err := b.start(ctx, c, options{}); err != nil {
		return err
	}
	n := g.to - g.from
	withSecret := n / namespacesPerSecret
	prefix := fmt.Sprintf("to%d", g.to)
	out, err := b.measure(ctx, load.Job{Kind: load.Namespaces, Prefix: prefix, N: n - withSecret}, n-withSecret, nil)
	if err != nil {
		return err
	}
	if err := b.do(ctx, load.Job{Kind: load.Fill, Prefix: prefix + "-token", N: withSecret, Spread: withSecret}); err != nil {
		return err
	}
	g.sum[totalTime] += out[last]
	g.sum[totalCPU] += out[ownCPU] * float64(n-withSecret) / 1000
	out[totalTime], out[totalCPU] = g.sum[totalTime], g.sum[totalCPU]
	s.record(scaleOn(g.to, scaleCreated), c.name, out.only(rate, ownCPU, serverCPU, peak, totalTime, totalCPU))
	return nil
}

// scaleRestart starts a process that has nothing to do.
func (s *session) scaleRestart(ctx context.Context, b *testbed, c contestant, g growth) error {
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
	out := sample{totalTime: idle.Sub(b.running.started).Seconds()}
	if err := b.readMeters(ctx, before, 1, out); err != nil {
		return err
	}
	out[totalCPU] = out[ownCPU] / 1000
	time.Sleep(memoryIdle)
	if out[resident], out[peak], err = memory(b.running.pid); err != nil {
		return err
	}
	s.record(scaleOn(g.to, scaleStart), c.name, out.only(totalTime, totalCPU, writes, resident, peak))
	return nil
}

// scaleSingle measures single events.
func (s *session) scaleSingle(ctx context.Context, b *testbed, _ contestant, g growth) error {
	prefix := fmt.Sprintf("one%d", g.to)
	space := load.Job{Kind: load.PacedNamespaces, Prefix: prefix + "-space", N: scaleEvents}
	if err := s.latency(ctx, b, scaleOn(g.to, scaleSpace), space); err != nil {
		return err
	}
	token := load.Job{Kind: load.PacedSecrets, Prefix: prefix + "-token", N: scaleEvents, Spread: scaleEvents}
	if err := s.latency(ctx, b, scaleOn(g.to, scaleToken), token); err != nil {
		return err
	}
	gone := load.Job{Prefix: prefix + "-gone", N: scaleEvents, Spread: scaleEvents}
	if err := b.createOwn(ctx, &gone); err != nil {
		return err
	}
	gone.Kind = load.PacedDeletions
	return s.latency(ctx, b, scaleOn(g.to, scaleAccount), gone)
}

// scaleChangeCA adds a certificate to the CA, and measures until the contestant is idle and every ConfigMap
// has it.
func (s *session) scaleChangeCA(ctx context.Context, b *testbed, c contestant, g growth) error {
	next := filepath.Join(b.dir, "next.crt")
	if err := writeBundle(next, g.ca); err != nil {
		return err
	}
	before, err := b.meters(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := os.Rename(next, b.caFile); err != nil {
		return err
	}
	if c.name == inTree.name { // it reads the file at its start
		if err := b.launch(c, options{}); err != nil {
			return err
		}
	} else {
		time.Sleep(time.Second) // it is idle until it has seen the change
	}
	idle, err := b.running.waitIdle(ctx)
	if err != nil {
		return b.explain(err)
	}
	out := sample{totalTime: idle.Sub(began).Seconds()}
	if err := b.readMeters(ctx, before, 1, out); err != nil {
		return err
	}
	out[totalCPU] = out[ownCPU] / 1000
	s.record(scaleOn(g.to, scaleCA), c.name, out.only(totalTime, totalCPU, writes, peak))
	return b.expectCA(ctx)
}

// expectCA returns an error unless all ConfigMaps have the CA.
func (b *testbed) expectCA(ctx context.Context) error {
	ca, err := os.ReadFile(b.caFile)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(b.controlPlane.Admin)
	if err != nil {
		return err
	}
	o := metav1.ListOptions{FieldSelector: "metadata.name=kube-root-ca.crt", Limit: 1000}
	for {
		page, err := client.CoreV1().ConfigMaps("").List(ctx, o)
		if err != nil {
			return err
		}
		for _, cm := range page.Items {
			if strings.TrimSpace(cm.Data["ca.crt"]) != strings.TrimSpace(string(ca)) {
				return fmt.Errorf("config map %s/%s has another CA", cm.Namespace, cm.Name)
			}
		}
		if o.Continue = page.Continue; o.Continue == "" {
			return nil
		}
	}
}

func copyFile(from, to string) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, content, 0o600)
}
