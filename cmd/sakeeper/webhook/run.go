package webhook

import (
	"context"
	"crypto/x509"
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
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/cmd/sakeeper/process"
	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/kube"
	"github.com/sakeeper/sakeeper/pkg/kube/rights"
	"github.com/sakeeper/sakeeper/pkg/podadmission"
	"github.com/sakeeper/sakeeper/pkg/podadmission/rules"
	"github.com/sakeeper/sakeeper/pkg/servingcert"
	"github.com/sakeeper/sakeeper/pkg/servingcert/certfiles"
	"github.com/sakeeper/sakeeper/pkg/webhook"
	"github.com/sakeeper/sakeeper/pkg/webhook/review"
)

const component = "sakeeper-webhook"

// The sources of reload failures.
const (
	sourceCertificate = "certificate"
	sourceClientCA    = "client-ca"
)

// Run runs until ctx ends, which is no error, or until something fails that cannot be retried.
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
	listener, err := p.open(ctx)
	if err != nil {
		return errors.Join(err, listeners.Close())
	}

	// Informers and certificates run until the last review is answered.
	working, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	group, working := errgroup.WithContext(working)
	group.Go(func() error {
		defer stop()
		serving, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(working, cancel)()
		return p.serve(serving, listener)
	})
	group.Go(func() error { return listeners.Serve(working, p.registry, p.probesHandler(ctx)) })
	group.Go(func() error { return p.certificates.Run(working) })
	if p.cfg.clientCA != nil {
		group.Go(func() error { return p.cfg.clientCA.Run(working) })
	}
	for _, informer := range p.informers {
		group.Go(func() error {
			informer.RunWithContext(working)
			return nil
		})
	}
	group.Go(func() error { return p.sendEvents(working) })
	group.Go(func() error { return p.rights.Run(working) })
	return group.Wait()
}

// Process is a process of sakeeper webhook.
type Process struct {
	cfg          *Config
	client       *kubernetes.Clientset
	events       *kube.Events
	recorder     record.EventRecorder
	rights       *rights.Monitor
	registry     *prometheus.Registry
	informers    []toolscache.SharedIndexInformer
	reviewer     *podadmission.Reviewer
	certificates certificates
	server       *webhook.Server
	listening    atomic.Bool
}

// New makes a process, of which nothing is started. The caller must call Close.
func New(ctx context.Context, cfg *Config) (*Process, error) {
	p := &Process{cfg: cfg, registry: process.NewRegistry(cfg.version)}
	var err error
	if p.rights, err = rights.Follow(cfg.rest, roles(cfg.options)...); err != nil {
		return nil, err
	}
	if p.client, err = kubernetes.NewForConfig(cfg.rest); err != nil {
		return nil, err
	}
	p.events = kube.NewEvents(ctx, component)
	p.recorder = p.events
	p.rights.OnMissing(func(text string) {
		p.recorder.Event(p.service(), corev1.EventTypeWarning, api.ReasonMissingRight, text)
	})
	p.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "sakeeper_webhook_ready", Help: "1 while this process answers reviews, 0 while it lacks what /readyz names.",
	}, p.ready))
	if err := errors.Join(p.makeReviewer(), p.makeCertificates()); err != nil {
		p.Close()
		return nil, err
	}
	p.server, err = webhook.New(webhook.Config{
		GetCertificate: p.certificates.GetCertificate,
		ClientCAs:      p.clientCAs(),
		ClientNames:    cfg.options.clientNames,
		Handlers:       map[string]review.Func{"/mutate/pods": p.reviewer.Mutate, "/validate/pods": p.reviewer.Validate},
		Drain:          cfg.options.shutdownDelay,
		Shared:         cfg.options.servers.Shared,
		Registerer:     p.registry,
	})
	if err != nil {
		p.Close()
	}
	return p, err
}

// Registry has the metrics of the process.
func (p *Process) Registry() *prometheus.Registry { return p.registry }

// Close ends the recording of events.
func (p *Process) Close() { p.events.Shutdown() }

const addressFlags = "--bind-address, --secure-port"

func (p *Process) listen(ctx context.Context) (net.Listener, error) {
	o := p.cfg.options
	return o.servers.Listen(ctx, addressFlags, net.JoinHostPort(o.bindAddress, strconv.Itoa(o.port)))
}

// open opens the port, so that the process ends at once if another has it. If the port is shared, it
// only checks the address, and returns nil: serve opens the port later.
func (p *Process) open(ctx context.Context) (net.Listener, error) {
	if !p.cfg.options.servers.Shared {
		return p.listen(ctx)
	}
	other, err := kube.Listen(ctx, addressFlags, net.JoinHostPort(p.cfg.options.bindAddress, "0"))
	if err != nil {
		return nil, err
	}
	return nil, other.Close()
}

// serve answers reviews until ctx ends. If listener is nil, because the port is shared, it opens the
// port when it is ready: the kernel would give it connections that another process can answer now.
func (p *Process) serve(ctx context.Context, listener net.Listener) error {
	if listener == nil {
		for !p.hasNeeds() {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(50 * time.Millisecond):
			}
		}
		var err error
		if listener, err = p.listen(ctx); err != nil {
			return err
		}
	}
	p.listening.Store(true)
	return p.server.Run(ctx, listener)
}

func (p *Process) makeReviewer() error {
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

func (p *Process) makeCertificates() error {
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
	p.followReloads(sourceCertificate, "certificate", files)
	return nil
}

// followReloads counts the changed files of a loader that cannot be used, and records events
// about them. What is the content of the files.
func (p *Process) followReloads(source, what string, files interface{ OnError(f func(error)) }) {
	files.OnError(p.failures().Count(source, func(err error) {
		p.recorder.Eventf(p.service(), corev1.EventTypeWarning, api.ReasonReloadFailed, "The last good "+what+" stays in use: %v", err)
	}))
}

// service is the object of events that are about the process.
func (p *Process) service() *corev1.ObjectReference {
	return &corev1.ObjectReference{Kind: "Service", APIVersion: "v1", Namespace: p.cfg.options.ownNamespace(), Name: component}
}

// roles returns the directories of manifests/rbac with the roles of a webhook.
func roles(o *Options) []string {
	directories := []string{"webhook"}
	if rules.TokenVolumeSource(o.tokenSource) == rules.SecretTokens {
		directories = append(directories, "webhook-token-volumes-from-secrets")
	}
	return directories
}

// failures is the counter of changed files, which has a series for each file that the flags name.
func (p *Process) failures() kube.ReloadFailures {
	var sources []string
	if p.cfg.options.certFile != "" {
		sources = append(sources, sourceCertificate)
	}
	if p.cfg.clientCA != nil {
		sources = append(sources, sourceClientCA)
	}
	return kube.NewReloadFailures(p.registry, sources...)
}

// clientCAs returns nil if any client may ask for reviews.
func (p *Process) clientCAs() func() *x509.CertPool {
	loader := p.cfg.clientCA
	if loader == nil {
		return nil
	}
	p.followReloads(sourceClientCA, "client CA", loader)
	current := func() *x509.CertPool {
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(loader.Get().PEM())
		return pool
	}
	var pool atomic.Pointer[x509.CertPool]
	pool.Store(current())
	loader.OnChange(func() { pool.Store(current()) })
	return pool.Load
}

// makeOwnCertificates is for a webhook that issues certificates of its own CA.
func (p *Process) makeOwnCertificates() error {
	o := p.cfg.options
	config := rest.CopyConfig(p.cfg.rest)
	config.UserAgent += "/" + servingcert.Name
	// The response to the first list gives the API server's time before certificates depend on it.
	serverClock := kube.FollowServerClock(config, clock.RealClock{})
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	cfg := servingcert.Config{
		Client: client.CoreV1(), Configurations: client.AdmissionregistrationV1(),
		SecretName:   toolscache.ObjectName{Namespace: o.ownNamespace(), Name: o.certSecret},
		MutatingName: o.mutating, ValidatingName: o.validating,
		Serving: func() bool { return p.reviewer.Ready() && p.listening.Load() },
		Hosts:   o.certificateHosts(), Recorder: p.recorder, Clock: serverClock,
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

// sendEvents starts to send events when the API server answers.
func (p *Process) sendEvents(ctx context.Context) error {
	if err := kube.WaitForServer(ctx, p.client.RESTClient(), p.cfg.rest.Host); err != nil {
		return process.UnlessStopped(ctx, err)
	}
	p.events.Start(p.client.CoreV1())
	return nil
}

var (
	errNotSynced    = errors.New("the cache of ServiceAccounts has not synced yet: the API server has not answered, or does not allow to list them")
	errStopping     = errors.New("stopping")
	errNotListening = errors.New("the port is opened when all else is ready")
)

// needs are the checks that must pass before reviews can be answered.
func (p *Process) needs() []kube.Check {
	return []kube.Check{
		{Name: "service accounts", Probe: func(*http.Request) error {
			if !p.reviewer.Ready() {
				return errNotSynced
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

// hasNeeds returns true if all needs pass.
func (p *Process) hasNeeds() bool {
	return !slices.ContainsFunc(p.needs(), func(need kube.Check) bool { return need.Probe(nil) != nil })
}

// ready is the value of sakeeper_webhook_ready.
func (p *Process) ready() float64 {
	if !p.hasNeeds() || !p.listening.Load() {
		return 0
	}
	return 1
}

// probesHandler serves the probes. /readyz fails when ctx ends, so that the Service sends no new
// reviews while the last ones are answered.
func (p *Process) probesHandler(ctx context.Context) http.Handler {
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
	return process.ProbesHandler([]kube.Check{process.Ping()}, slices.Concat([]kube.Check{running}, p.needs(), []kube.Check{port, process.Rights(p.rights)}))
}
