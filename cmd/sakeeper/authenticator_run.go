package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/authenticator"
	"github.com/sakeeper/sakeeper/pkg/authenticator/live"
	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/kube"
	"github.com/sakeeper/sakeeper/pkg/servingcert/certfiles"
)

// runAuthenticator runs until ctx ends (nil), or something that cannot be retried fails.
func runAuthenticator(ctx context.Context, cfg *authenticatorConfig) error {
	ctx, listeners, err := begin(ctx, authenticatorComponent, cfg.options.logs, cfg.options.servers)
	if err != nil {
		return err
	}
	listener, err := kube.Listen(ctx, "--bind-address, --secure-port", net.JoinHostPort(cfg.options.bindAddress, strconv.Itoa(cfg.options.port)))
	if err != nil {
		return errors.Join(err, listeners.close())
	}
	p, err := newAuthenticatorProcess(cfg)
	if err != nil {
		return errors.Join(err, listener.Close(), listeners.close())
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, run := range p.runs {
		group.Go(func() error { return run(ctx) })
	}
	group.Go(func() error { return listeners.serve(ctx, p.registry, p.probesHandler()) })
	group.Go(func() error { return kube.Serve(ctx, tls.NewListener(listener, p.tlsConfig()), p.handler) })
	return group.Wait()
}

// authenticatorProcess is everything in a process of sakeeper authenticator.
type authenticatorProcess struct {
	cfg          *authenticatorConfig
	registry     *prometheus.Registry
	certificates *certfiles.Files
	handler      *http.ServeMux
	runs         []func(context.Context) error
	synced       []toolscache.InformerSynced
}

func newAuthenticatorProcess(cfg *authenticatorConfig) (*authenticatorProcess, error) {
	p := &authenticatorProcess{cfg: cfg, registry: prometheus.NewRegistry(), handler: http.NewServeMux()}
	kube.RegisterBuildInfo(p.registry, buildVersion())
	p.registry.MustRegister(newKeyCollector(cfg.keys.Get))
	failures := newReloadFailures(p.registry, "keys", "ca", "certificate")
	count := func(source string) func(error) {
		return func(error) { failures.WithLabelValues(source).Inc() }
	}
	cfg.keys.OnError(count("keys"))
	var err error
	p.certificates, err = certfiles.New(certfiles.Config{
		CertFile: cfg.options.certFile, KeyFile: cfg.options.keyFile, Clock: clock.RealClock{}, Registerer: p.registry,
	})
	if err != nil {
		return nil, err
	}
	p.certificates.OnError(count("certificate"))
	p.runs = append(p.runs, cfg.keys.Run, p.certificates.Run)
	cfg.discovery.Register(p.handler)
	if cfg.clientCA == nil {
		return p, nil
	}
	cfg.clientCA.OnError(count("ca"))
	p.runs = append(p.runs, cfg.clientCA.Run)
	return p, p.makeReviews()
}

// makeReviews turns /authenticate on.
func (p *authenticatorProcess) makeReviews() error {
	o := p.cfg.options
	client, err1 := kubernetes.NewForConfig(p.cfg.rest)
	meta, err2 := metadata.NewForConfig(p.cfg.rest)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	cluster := live.Cluster{Metadata: meta, Secrets: client.CoreV1()}
	var errs [3]error
	cluster.ServiceAccounts, errs[0] = live.CacheServiceAccounts(meta)
	cluster.Nodes, errs[1] = live.CacheNodes(meta)
	cluster.TokenSecrets, errs[2] = cache.TokenSecrets(client, nil)
	if err := errors.Join(errs[:]...); err != nil {
		return err
	}
	for _, informer := range []toolscache.SharedIndexInformer{cluster.ServiceAccounts, cluster.Nodes, cluster.TokenSecrets} {
		p.synced = append(p.synced, informer.HasSynced)
		p.runs = append(p.runs, func(ctx context.Context) error {
			informer.RunWithContext(ctx)
			return nil
		})
	}
	cfg := authenticator.Config{
		Keys: p.cfg.keys.Get, Issuers: o.issuers, Audiences: o.audiences, Objects: cluster, Clock: clock.RealClock{},
	}
	if o.track {
		tracker := live.NewTracker(client.CoreV1(), clock.RealClock{})
		cfg.Used = tracker.Used
		p.runs = append(p.runs, tracker.Run)
	}
	for _, foreign := range p.cfg.foreign {
		cfg.Foreign = append(cfg.Foreign, foreign.Foreign)
		if foreign.files != nil {
			p.runs = append(p.runs, foreign.files.Run)
		} else {
			p.runs = append(p.runs, foreign.remote.Run)
		}
	}
	judge, err := authenticator.New(cfg)
	if err != nil {
		return err
	}
	reviews := authenticator.Reviews{Authenticator: judge, Metrics: authenticator.NewMetrics(p.registry)}
	p.handler.HandleFunc(authenticator.ReviewPath, func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
			http.Error(w, "a client certificate of --client-ca-file is required", http.StatusUnauthorized)
			return
		}
		reviews.ServeHTTP(w, r)
	})
	return nil
}

// tlsConfig asks for client certificates, and leaves it to the paths whether one is
// needed: discovery is public.
func (p *authenticatorProcess) tlsConfig() *tls.Config {
	base := &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: p.certificates.GetCertificate, NextProtos: []string{"h2", "http/1.1"}}
	if p.cfg.clientCA == nil {
		return base
	}
	base.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		current := base.Clone()
		current.GetConfigForClient = nil
		current.ClientAuth, current.ClientCAs = tls.VerifyClientCertIfGiven, x509.NewCertPool()
		current.ClientCAs.AppendCertsFromPEM(p.cfg.clientCA.Get().PEM())
		return current, nil
	}
	return base
}

var errCaches = errors.New("the objects that tokens are bound to were not all seen yet: the API server has not answered, or does not allow to list them")

func (p *authenticatorProcess) probesHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/livez", kube.Probe(ping()))
	mux.Handle("/readyz", kube.Probe(
		kube.Check{Name: "caches", Probe: func(*http.Request) error {
			for _, synced := range p.synced {
				if !synced() {
					return errCaches
				}
			}
			return nil
		}},
		kube.Check{Name: "certificate", Probe: func(*http.Request) error { return p.certificates.Ready() }},
	))
	return mux
}
