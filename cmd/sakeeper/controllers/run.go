package controllers

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/sakeeper/sakeeper/cmd/sakeeper/process"
	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/controllers"
	"github.com/sakeeper/sakeeper/pkg/kube"
	"github.com/sakeeper/sakeeper/pkg/kube/rights"
)

const component = controllers.Component

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
	group.Go(func() error { return listeners.Serve(ctx, cfg.registry, p.probesHandler()) })
	group.Go(func() error { return cfg.suite.Run(ctx) })
	if p.rights != nil {
		group.Go(func() error { return p.rights.Run(ctx) })
	}
	return group.Wait()
}

// Process is everything in a process of sakeeper controllers.
type Process struct {
	cfg *Config
	// events are about the election; the suite records its own.
	events *kube.Events
	// rights sees the requests of the election; nil with --leader-elect=false.
	rights *rights.Monitor
}

// New makes a process, of which nothing is started. The caller must call Close.
func New(ctx context.Context, cfg *Config) (*Process, error) {
	p := &Process{cfg: cfg, events: kube.NewEvents(ctx, component)}
	o := cfg.options.election
	if !o.Enabled {
		return p, nil
	}
	// A client of its own: neither the rate limit of the controllers nor a request that hangs may
	// cost the Lease.
	config := rest.CopyConfig(cfg.rest)
	config.Timeout = kube.LeaseTimeout(o.RenewDeadline)
	var errRights error
	p.rights, errRights = rights.Follow(config, "controllers")
	client, err := kubernetes.NewForConfig(config)
	watch := rest.CopyConfig(config)
	watch.Timeout = 0 // it would end every watch
	watcher, errWatch := kubernetes.NewForConfig(watch)
	if err = errors.Join(errRights, err, errWatch); err == nil {
		p.rights.OnMissing(func(text string) {
			p.events.Event(o.Reference(), corev1.EventTypeWarning, api.ReasonMissingRight, text)
		})
		cfg.startElection = func() { p.events.Start(client.CoreV1()) }
		cfg.election, err = kube.NewElection(kube.ElectionConfig{
			Client: client.CoordinationV1(), Recorder: p.events,
			Namespace: o.LeaseNamespace(), Name: o.Name,
			LeaseDuration: o.LeaseDuration, RenewDeadline: o.RenewDeadline, RetryPeriod: o.RetryPeriod,
			Guard: &cfg.guard, Watch: watcher,
		})
	}
	if err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// Close ends the recording of events.
func (p *Process) Close() { p.events.Shutdown() }

func (p *Process) probesHandler() http.Handler {
	alive := []kube.Check{process.Ping()}
	if p.cfg.election != nil {
		alive = append(alive, kube.Check{Name: "leader election", Probe: p.cfg.election.Alive})
	}
	return process.ProbesHandler(alive, []kube.Check{{Name: "controllers", Probe: p.ready}})
}

var errNoLeader = errors.New("no leader was observed yet: the API server has not answered, or does not allow access to the lease")

// ready returns nil if this process does its part: a standby, if it has seen that there is a
// leader, and the leader, if its suite is ready; both, if they have the rights on the Lease.
func (p *Process) ready(*http.Request) error {
	election := p.cfg.election
	if p.rights != nil {
		if err := p.rights.Err(); err != nil {
			return err
		}
	}
	if election == nil || election.Leading() {
		if err := p.cfg.guard.Err(); err != nil {
			return fmt.Errorf("%w: no request is made until it is renewed", err)
		}
		return p.cfg.suite.Ready()
	}
	if !election.OtherLeader() {
		return errNoLeader
	}
	return nil
}
