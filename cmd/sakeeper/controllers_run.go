package main

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
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/kube"
)

const component = "sakeeper-controllers"

// runControllers runs until ctx ends (nil), or something that cannot be retried
// fails.
func runControllers(ctx context.Context, cfg *controllersConfig) error {
	ctx, listeners, err := begin(ctx, component, cfg.options.logs, cfg.options.servers)
	if err != nil {
		return err
	}
	p, err := newControllersProcess(ctx, cfg)
	if err != nil {
		return errors.Join(err, listeners.close())
	}
	defer p.broadcaster.Shutdown()

	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return listeners.serve(ctx, p.registry, p.probesHandler()) })
	if cfg.keys != nil {
		group.Go(func() error { return cfg.keys.Run(ctx) })
	}
	if cfg.ca != nil {
		group.Go(func() error { return cfg.ca.Run(ctx) })
	}
	group.Go(func() error { return p.work(ctx) })
	return group.Wait()
}

// controllersProcess is everything in a process of sakeeper controllers.
type controllersProcess struct {
	cfg         *controllersConfig
	host        string
	client      *kubernetes.Clientset
	broadcaster record.EventBroadcaster
	recorder    record.EventRecorder
	registry    *prometheus.Registry
	assembly    *assembly
	election    *kube.Election // nil with --leader-elect=false
}

func newControllersProcess(ctx context.Context, cfg *controllersConfig) (*controllersProcess, error) {
	o := cfg.options
	p := &controllersProcess{cfg: cfg, host: cfg.rest.Host, registry: prometheus.NewRegistry()}
	var err error
	if p.client, err = kubernetes.NewForConfig(cfg.rest); err != nil {
		return nil, err
	}
	// It outlives ctx: the last events, of which some get through, are about the stop.
	p.broadcaster = record.NewBroadcaster(record.WithContext(context.WithoutCancel(ctx)))
	p.recorder = p.broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: component})
	if o.election.enabled {
		// A client of its own: neither the work's rate limit nor a request that hangs
		// may cost the lease.
		electionConfig := rest.CopyConfig(cfg.rest)
		electionConfig.Timeout = min(o.election.renewDeadline/2, max(o.election.leaseDuration-o.election.renewDeadline, time.Second)/2)
		electionClient, err := kubernetes.NewForConfig(electionConfig)
		if err != nil {
			return nil, err
		}
		p.election, err = kube.NewElection(kube.ElectionConfig{
			Client: electionClient.CoordinationV1(), Recorder: p.recorder,
			Namespace: o.election.leaseNamespace(), Name: o.election.name,
			LeaseDuration: o.election.leaseDuration, RenewDeadline: o.election.renewDeadline, RetryPeriod: o.election.retryPeriod,
		})
		if err != nil {
			return nil, err
		}
	}
	kube.RegisterBuildInfo(p.registry, buildVersion())
	p.followReloads()
	p.assembly, err = assemble(cfg, p.recorder, p.registry)
	return p, err
}

// followReloads counts and reports files that turned bad.
func (p *controllersProcess) followReloads() {
	failures := newReloadFailures(p.registry, "keys", "ca")
	lease := &corev1.ObjectReference{
		Kind: "Lease", APIVersion: "coordination.k8s.io/v1",
		Namespace: p.cfg.options.election.leaseNamespace(), Name: p.cfg.options.election.name,
	}
	report := func(source string) func(error) {
		count := failures.WithLabelValues(source)
		return func(err error) {
			count.Inc()
			p.recorder.Eventf(lease, corev1.EventTypeWarning, api.ReasonReloadFailed, "The last good value stays in use: %v", err)
		}
	}
	if p.cfg.keys != nil {
		p.cfg.keys.OnError(report("keys"))
		p.registry.MustRegister(newKeyCollector(p.cfg.keys.Get))
	}
	if p.cfg.ca != nil {
		p.cfg.ca.OnError(report("ca"))
	}
}

func (p *controllersProcess) probesHandler() http.Handler {
	mux := http.NewServeMux()
	alive := []kube.Check{ping()}
	if p.election != nil {
		alive = append(alive, kube.Check{Name: "leader election", Probe: p.election.Alive})
	}
	mux.Handle("/livez", kube.Probe(alive...))
	mux.Handle("/readyz", kube.Probe(kube.Check{Name: "controllers", Probe: p.ready}))
	return mux
}

var (
	errNoLeader = errors.New("no leader was observed yet: the API server has not answered, or does not allow access to the lease")
	errStarting = errors.New("the objects that existed at the start are not all handled yet")
)

// ready tells whether this process does its part: a standby when it has seen that
// there is a leader, and whoever works when everything that existed at the start
// was handled once and the API server takes its tokens.
func (p *controllersProcess) ready(*http.Request) error {
	if p.election != nil && !p.election.Leading() {
		if !p.election.OtherLeader() {
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
func (p *controllersProcess) work(ctx context.Context) error {
	if err := kube.WaitForServer(ctx, p.client.RESTClient(), p.host); err != nil {
		return unlessStopped(ctx, err)
	}
	p.broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: p.client.CoreV1().Events("")})
	if p.election == nil {
		return p.lead(ctx)
	}
	return p.election.Run(ctx, p.lead)
}

func (p *controllersProcess) lead(ctx context.Context) error {
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
