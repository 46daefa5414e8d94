package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/kube"
	"github.com/sakeeper/sakeeper/pkg/podadmission"
	"github.com/sakeeper/sakeeper/pkg/servingcert"
	"github.com/sakeeper/sakeeper/pkg/servingcert/certfiles"
	"github.com/sakeeper/sakeeper/pkg/webhook"
)

const webhookComponent = "sakeeper-webhook"

// runWebhook runs until ctx ends (nil), or something that cannot be retried fails.
func runWebhook(ctx context.Context, cfg *webhookConfig) error {
	ctx, listeners, err := begin(ctx, webhookComponent, cfg.options.logs, cfg.options.servers)
	if err != nil {
		return err
	}
	p, err := newWebhookProcess(ctx, cfg)
	if err != nil {
		return errors.Join(err, listeners.close())
	}
	defer p.broadcaster.Shutdown()
	reviews, err := p.open(ctx)
	if err != nil {
		return errors.Join(err, listeners.close())
	}

	// What reviews need goes on until the last one is answered.
	working, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	group, working := errgroup.WithContext(working)
	group.Go(func() error {
		defer stop()
		serving, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(working, cancel)()
		return p.serve(serving, reviews)
	})
	group.Go(func() error { return listeners.serve(working, p.registry, p.probesHandler(ctx)) })
	group.Go(func() error { return p.certificates.Run(working) })
	for _, informer := range p.informers {
		group.Go(func() error {
			informer.RunWithContext(working)
			return nil
		})
	}
	group.Go(func() error { return p.announce(working) })
	return group.Wait()
}

// webhookProcess is everything in a process of sakeeper webhook.
type webhookProcess struct {
	cfg          *webhookConfig
	client       *kubernetes.Clientset
	broadcaster  record.EventBroadcaster
	recorder     record.EventRecorder
	registry     *prometheus.Registry
	informers    []toolscache.SharedIndexInformer
	reviewer     *podadmission.Reviewer
	certificates certificates
	server       *webhook.Server
	listening    atomic.Bool
}

func newWebhookProcess(ctx context.Context, cfg *webhookConfig) (*webhookProcess, error) {
	p := &webhookProcess{cfg: cfg, registry: prometheus.NewRegistry()}
	var err error
	if p.client, err = kubernetes.NewForConfig(cfg.rest); err != nil {
		return nil, err
	}
	p.broadcaster = record.NewBroadcaster(record.WithContext(context.WithoutCancel(ctx)))
	p.recorder = p.broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: webhookComponent})
	kube.RegisterBuildInfo(p.registry, buildVersion())
	p.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "sakeeper_webhook_ready", Help: "1 while this process answers reviews, 0 while it lacks what /readyz names.",
	}, p.ready))
	if err := errors.Join(p.makeReviewer(), p.makeCertificates()); err != nil {
		p.broadcaster.Shutdown()
		return nil, err
	}
	p.server, err = webhook.New(webhook.Config{
		GetCertificate: p.certificates.GetCertificate,
		Handlers:       map[string]webhook.Handler{"/mutate/pods": p.reviewer.Mutate, "/validate/pods": p.reviewer.Validate},
		Drain:          cfg.options.drain,
		Shared:         cfg.options.servers.shared,
		Registerer:     p.registry,
	})
	if err != nil {
		p.broadcaster.Shutdown()
	}
	return p, err
}

const addressFlags = "--bind-address, --secure-port"

func (p *webhookProcess) listen(ctx context.Context) (net.Listener, error) {
	o := p.cfg.options
	return o.servers.listen(ctx, addressFlags, net.JoinHostPort(o.bindAddress, strconv.Itoa(o.port)))
}

// open opens a port of its own, so that what is in the way ends the start. Of one that is
// shared it looks at the address only, and returns nil.
func (p *webhookProcess) open(ctx context.Context) (net.Listener, error) {
	if !p.cfg.options.servers.shared {
		return p.listen(ctx)
	}
	other, err := kube.Listen(ctx, addressFlags, net.JoinHostPort(p.cfg.options.bindAddress, "0"))
	if err != nil {
		return nil, err
	}
	return nil, other.Close()
}

// serve answers reviews until ctx ends. Without a listener, as on a port that is shared,
// it opens one when it is ready: connections that it got before, others would have
// answered.
func (p *webhookProcess) serve(ctx context.Context, reviews net.Listener) error {
	if reviews == nil {
		for p.lacking() {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(50 * time.Millisecond):
			}
		}
		var err error
		if reviews, err = p.listen(ctx); err != nil {
			return err
		}
	}
	p.listening.Store(true)
	return p.server.Run(ctx, reviews)
}

func (p *webhookProcess) makeReviewer() error {
	accounts, err := podadmission.Accounts(p.client)
	if err != nil {
		return err
	}
	p.informers = append(p.informers, accounts)
	p.reviewer, err = podadmission.New(podadmission.Config{
		Accounts: accounts,
		Client:   p.client.CoreV1(),
		Secrets:  p.client.CoreV1(),
		Settings: p.cfg.options.settings(),
		Awaited:  p.cfg.options.serviceAccounts,
	})
	return err
}

func (p *webhookProcess) makeCertificates() error {
	o := p.cfg.options
	if o.certFile == "" {
		return p.makeOwnCertificates()
	}
	files, err := certfiles.New(certfiles.Config{
		CertFile: o.certFile, KeyFile: o.keyFile, Clock: clock.RealClock{}, Registerer: p.registry,
	})
	if err != nil {
		return err
	}
	p.certificates = files
	p.followReloads(files)
	return nil
}

// followReloads counts and reports certificate files that turned bad.
func (p *webhookProcess) followReloads(files *certfiles.Files) {
	failures := newReloadFailures(p.registry, "certificate")
	count := failures.WithLabelValues("certificate")
	service := &corev1.ObjectReference{Kind: "Service", APIVersion: "v1", Namespace: p.cfg.options.ownNamespace(), Name: webhookComponent}
	files.OnError(func(err error) {
		count.Inc()
		p.recorder.Eventf(service, corev1.EventTypeWarning, api.ReasonReloadFailed, "The last good certificate stays in use: %v", err)
	})
}

// makeOwnCertificates is for a webhook that keeps its own.
func (p *webhookProcess) makeOwnCertificates() error {
	o := p.cfg.options
	config := rest.CopyConfig(p.cfg.rest)
	config.UserAgent += "/" + servingcert.Name
	// Its first list tells what the server's time is, before anything is decided on it.
	serverClock := kube.NewServerClock(clock.RealClock{})
	config.Wrap(serverClock.Wrap)
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	cfg := servingcert.Config{
		Client: client.CoreV1(), Configurations: client.AdmissionregistrationV1(),
		SecretName:   toolscache.ObjectName{Namespace: o.ownNamespace(), Name: o.certSecret},
		MutatingName: o.mutating, ValidatingName: o.validating,
		Hosts: o.certificateHosts(), Recorder: p.recorder, Clock: serverClock,
		Registerer: p.registry,
	}
	if cfg.Secrets, err = servingcert.Secrets(client, cfg.SecretName); err != nil {
		return err
	}
	p.informers = append(p.informers, cfg.Secrets)
	if o.mutating != "" {
		if cfg.Mutating, err = servingcert.Mutating(client, o.mutating); err != nil {
			return err
		}
		p.informers = append(p.informers, cfg.Mutating)
	}
	if o.validating != "" {
		if cfg.Validating, err = servingcert.Validating(client, o.validating); err != nil {
			return err
		}
		p.informers = append(p.informers, cfg.Validating)
	}
	own, err := servingcert.New(cfg)
	p.certificates = own
	return err
}

// announce sends events once the API server answers.
func (p *webhookProcess) announce(ctx context.Context) error {
	if err := kube.WaitForServer(ctx, p.client.RESTClient(), p.cfg.rest.Host); err != nil {
		return unlessStopped(ctx, err)
	}
	p.broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: p.client.CoreV1().Events("")})
	return nil
}

var (
	errAccountsUnseen = errors.New("the ServiceAccounts were not all seen yet: the API server has not answered, or does not allow to list them")
	errStopping       = errors.New("stopping")
	errNotListening   = errors.New("the port is opened when all else is there")
)

// needs are what reviews cannot be answered without.
func (p *webhookProcess) needs() []kube.Check {
	return []kube.Check{
		{Name: "service accounts", Probe: func(*http.Request) error {
			if !p.reviewer.Ready() {
				return errAccountsUnseen
			}
			return nil
		}},
		{Name: "certificate", Probe: func(*http.Request) error {
			if err := p.certificates.Ready(); err != nil {
				return fmt.Errorf("serving certificate: %w", err)
			}
			return nil
		}},
	}
}

// lacking tells whether one of the needs is not there.
func (p *webhookProcess) lacking() bool {
	return slices.ContainsFunc(p.needs(), func(need kube.Check) bool { return need.Probe(nil) != nil })
}

// ready is 1 or 0.
func (p *webhookProcess) ready() float64 {
	if p.lacking() || !p.listening.Load() {
		return 0
	}
	return 1
}

// probesHandler turns unready when ctx ends, so that nobody new comes while the last
// reviews are answered.
func (p *webhookProcess) probesHandler(ctx context.Context) http.Handler {
	running := kube.Check{Name: "running", Probe: func(*http.Request) error {
		if ctx.Err() != nil {
			return errStopping
		}
		return nil
	}}
	port := kube.Check{Name: "port", Probe: func(*http.Request) error {
		if !p.listening.Load() {
			return errNotListening
		}
		return nil
	}}
	mux := http.NewServeMux()
	mux.Handle("/livez", kube.Probe(ping()))
	mux.Handle("/readyz", kube.Probe(slices.Concat([]kube.Check{running}, p.needs(), []kube.Check{port})...))
	return mux
}
