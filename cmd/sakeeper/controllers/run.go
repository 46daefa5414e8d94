package controllers

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"

	"github.com/sakeeper/sakeeper/cmd/sakeeper/process"
	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/kube"
)

const component = "sakeeper-controllers"

// Run runs until ctx ends (nil), or something that cannot be retried
// fails.
func Run(ctx context.Context, cfg *Config) error {
	ctx, listeners, err := process.Begin(ctx, component, cfg.version, cfg.options.logs, cfg.options.servers)
	if err != nil {
		return err
	}
	p, err := New(ctx, cfg)
	if err != nil {
		return errors.Join(err, listeners.Close())
	}
	defer p.Close()

	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return listeners.Serve(ctx, p.registry, p.probesHandler()) })
	if cfg.keys != nil {
		group.Go(func() error { return cfg.keys.Run(ctx) })
	}
	if cfg.ca != nil {
		group.Go(func() error { return cfg.ca.Run(ctx) })
	}
	group.Go(func() error { return p.work(ctx) })
	return group.Wait()
}

// Process is everything in a process of sakeeper controllers.
type Process struct {
	cfg      *Config
	host     string
	client   *kubernetes.Clientset
	events   *kube.Events
	recorder record.EventRecorder
	registry *prometheus.Registry
	assembly *assembly
	election *kube.Election // nil with --leader-elect=false
}

// New makes a process, of which nothing is started. The caller must call Close.
func New(ctx context.Context, cfg *Config) (*Process, error) {
	o := cfg.options
	p := &Process{cfg: cfg, host: cfg.rest.Host, registry: process.NewRegistry(cfg.version)}
	var err error
	if p.client, err = kubernetes.NewForConfig(cfg.rest); err != nil {
		return nil, err
	}
	p.events = kube.NewEvents(ctx, component)
	p.recorder = p.events
	if o.election.Enabled {
		// A client of its own: neither the work's rate limit nor a request that hangs
		// may cost the lease.
		electionConfig := rest.CopyConfig(cfg.rest)
		electionConfig.Timeout = min(o.election.RenewDeadline/2, max(o.election.LeaseDuration-o.election.RenewDeadline, time.Second)/2)
		electionClient, err := kubernetes.NewForConfig(electionConfig)
		if err != nil {
			return nil, err
		}
		p.election, err = kube.NewElection(kube.ElectionConfig{
			Client: electionClient.CoordinationV1(), Recorder: p.recorder,
			Namespace: o.election.LeaseNamespace(), Name: o.election.Name,
			LeaseDuration: o.election.LeaseDuration, RenewDeadline: o.election.RenewDeadline, RetryPeriod: o.election.RetryPeriod,
		})
		if err != nil {
			return nil, err
		}
	}
	p.followReloads()
	p.assembly, err = assemble(cfg, p.recorder, p.registry)
	return p, err
}

// Registry has the metrics of the process.
func (p *Process) Registry() *prometheus.Registry { return p.registry }

// Close ends the recording of events.
func (p *Process) Close() { p.events.Shutdown() }

// followReloads counts and reports files that turned bad.
func (p *Process) followReloads() {
	failures := kube.NewReloadFailures(p.registry, "keys", "ca")
	lease := &corev1.ObjectReference{
		Kind: "Lease", APIVersion: "coordination.k8s.io/v1",
		Namespace: p.cfg.options.election.LeaseNamespace(), Name: p.cfg.options.election.Name,
	}
	report := func(err error) {
		p.recorder.Eventf(lease, corev1.EventTypeWarning, api.ReasonReloadFailed, "The last good value stays in use: %v", err)
	}
	if p.cfg.keys != nil {
		p.cfg.keys.OnError(failures.Count("keys", report))
		p.registry.MustRegister(process.NewKeyCollector(p.cfg.keys.Get))
	}
	if p.cfg.ca != nil {
		p.cfg.ca.OnError(failures.Count("ca", report))
	}
}

func (p *Process) probesHandler() http.Handler {
	alive := []kube.Check{process.Ping()}
	if p.election != nil {
		alive = append(alive, kube.Check{Name: "leader election", Probe: p.election.Alive})
	}
	return process.ProbesHandler(alive, []kube.Check{{Name: "controllers", Probe: p.ready}})
}

var (
	errNoLeader = errors.New("no leader was observed yet: the API server has not answered, or does not allow access to the lease")
	errStarting = errors.New("the objects that existed at the start are not all handled yet")
)

// ready tells whether this process does its part: a standby when it has seen that
// there is a leader, and whoever works when everything that existed at the start
// was handled once and the API server takes its tokens.
func (p *Process) ready(*http.Request) error {
	if p.election != nil && !p.election.Leading() {
		if !p.election.Observed() {
			return errNoLeader
		}
		return nil
	}
	for _, name := range controllerNames() {
		if c := p.assembly.controllers[name]; c != nil && !c.Ready() {
			return fmt.Errorf("%s: %w", name, errStarting)
		}
	}
	if p.assembly.gate != nil {
		return p.assembly.gate.Ready()
	}
	return nil
}

// work waits for the API server and for the lease, and then runs the controllers.
func (p *Process) work(ctx context.Context) error {
	if err := kube.WaitForServer(ctx, p.client.RESTClient(), p.host); err != nil {
		return process.UnlessStopped(ctx, err)
	}
	p.events.Start(p.client.CoreV1())
	if p.election == nil {
		return p.lead(ctx)
	}
	return p.election.Run(ctx, p.lead)
}

func (p *Process) lead(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	if p.cfg.ca != nil {
		announceCA(ctx, p.client, p.recorder, p.cfg.ca.Get())
	}
	for _, informer := range p.assembly.watched() {
		group.Go(func() error {
			informer.RunWithContext(ctx)
			return nil
		})
	}
	if p.assembly.gate != nil {
		group.Go(func() error { return p.assembly.gate.Run(ctx) })
	}
	for _, c := range p.assembly.controllers {
		group.Go(func() error { return c.Run(ctx) })
	}
	return group.Wait()
}
