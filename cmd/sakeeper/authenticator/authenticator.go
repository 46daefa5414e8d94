// Package authenticator is the subcommand that answers TokenReviews and serves OIDC discovery. Its work
// is that of [github.com/sakeeper/sakeeper/pkg/authenticator].
package authenticator

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/cmd/sakeeper/process"
	"github.com/sakeeper/sakeeper/pkg/authenticator"
	"github.com/sakeeper/sakeeper/pkg/authenticator/live"
	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/kube"
	"github.com/sakeeper/sakeeper/pkg/kube/rights"
	"github.com/sakeeper/sakeeper/pkg/servingcert/certfiles"
)

// Run runs until ctx ends, which is no error, or until something fails that cannot be retried.
func Run(ctx context.Context, cfg *Config) error {
	ctx, listeners, err := process.Begin(ctx, component, cfg.version, cfg.options.logs, cfg.options.servers)
	if err != nil {
		return err
	}
	listener, err := kube.Listen(ctx, "--bind-address, --secure-port", net.JoinHostPort(cfg.options.bindAddress, strconv.Itoa(cfg.options.port)))
	if err != nil {
		return errors.Join(err, listeners.Close())
	}
	p, err := New(cfg)
	if err != nil {
		return errors.Join(err, listener.Close(), listeners.Close())
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, run := range p.runs {
		group.Go(func() error { return run(ctx) })
	}
	group.Go(func() error { return listeners.Serve(ctx, p.registry, p.probesHandler()) })
	group.Go(func() error { return kube.Serve(ctx, tls.NewListener(listener, p.tlsConfig()), p.handler) })
	return group.Wait()
}

// Process is a process of sakeeper authenticator.
type Process struct {
	cfg          *Config
	registry     *prometheus.Registry
	certificates *certfiles.Files
	handler      *http.ServeMux
	runs         []func(context.Context) error
	caches       []cacheState
	rights       *rights.Monitor // nil if there are no reviews
}

// cacheState is what /readyz says about a cache.
type cacheState struct {
	name     string
	synced   toolscache.InformerSynced
	liveness *cache.Liveness
}

// New makes a process, of which nothing is started.
func New(cfg *Config) (*Process, error) {
	p := &Process{cfg: cfg, registry: process.NewRegistry(cfg.version), handler: http.NewServeMux()}
	p.registry.MustRegister(keys.NewCollector(cfg.keys.Get))
	failures := kube.NewReloadFailures(p.registry, "keys", "ca", "certificate")
	cfg.keys.OnError(failures.Count("keys", nil))
	var err error
	p.certificates, err = certfiles.New(certfiles.Config{
		CertFile: cfg.options.certFile, KeyFile: cfg.options.keyFile, Clock: clock.RealClock{}, Registerer: p.registry,
	})
	if err != nil {
		return nil, err
	}
	p.certificates.OnError(failures.Count("certificate", nil))
	p.runs = append(p.runs, cfg.keys.Run, p.certificates.Run)
	cfg.discovery.Register(p.handler)
	if cfg.clientCA == nil {
		return p, nil
	}
	cfg.clientCA.OnError(failures.Count("ca", nil))
	p.runs = append(p.runs, cfg.clientCA.Run)
	return p, p.makeReviews()
}

// Registry has the metrics of the process.
func (p *Process) Registry() *prometheus.Registry { return p.registry }

// makeReviews serves /authenticate.
func (p *Process) makeReviews() error {
	o := p.cfg.options
	roles := []string{"authenticator"}
	if o.track {
		roles = append(roles, "authenticator-track-legacy-tokens")
	}
	var err error
	if p.rights, err = rights.Follow(p.cfg.rest, roles...); err != nil {
		return err
	}
	p.runs = append(p.runs, p.rights.Run)
	client, err1 := kubernetes.NewForConfig(p.cfg.rest)
	meta, err2 := metadata.NewForConfig(p.cfg.rest)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	cluster, err := p.makeCaches(client, meta)
	if err != nil {
		return err
	}
	cfg := authenticator.Config{
		Keys: p.cfg.keys.Get, Issuers: o.issuers, Audiences: o.audiences, Objects: cluster, Clock: clock.RealClock{}, Registerer: p.registry,
	}
	if o.track {
		tracker := live.NewTracker(client.CoreV1(), clock.RealClock{})
		cfg.Used = tracker.Used
		p.runs = append(p.runs, tracker.Run)
	}
	for _, foreign := range p.cfg.foreign {
		cfg.TrustedIssuers = append(cfg.TrustedIssuers, foreign.TrustedIssuer)
		if foreign.files != nil {
			p.runs = append(p.runs, foreign.files.Run)
		} else {
			p.runs = append(p.runs, foreign.remote.Run)
		}
	}
	verifier, err := authenticator.New(cfg)
	if err != nil {
		return err
	}
	reviews := verifier.Handler()
	p.handler.HandleFunc(authenticator.ReviewPath, func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
			http.Error(w, "a client certificate of --client-ca-file is required", http.StatusUnauthorized)
			return
		}
		reviews.ServeHTTP(w, r)
	})
	return nil
}

// makeCaches makes the caches of bound objects. p.runs runs them.
func (p *Process) makeCaches(client kubernetes.Interface, meta metadata.Interface) (live.Cluster, error) {
	cluster := live.Cluster{Metadata: meta, Secrets: client.CoreV1()}
	var errs [3]error
	cluster.ServiceAccounts, errs[0] = live.CacheServiceAccounts(meta)
	cluster.Nodes, errs[1] = live.CacheNodes(meta)
	cluster.TokenSecrets, errs[2] = cache.TokenSecrets(client, nil)
	if err := errors.Join(errs[:]...); err != nil {
		return cluster, err
	}
	probe := client.CoreV1().RESTClient()
	for i, c := range []struct {
		name, resource, fieldSelector string
		informer                      toolscache.SharedIndexInformer
		liveness                      **cache.Liveness
	}{
		{"ServiceAccounts", "serviceaccounts", "", cluster.ServiceAccounts, &cluster.ServiceAccountsLiveness},
		{"Nodes", "nodes", "", cluster.Nodes, &cluster.NodesLiveness},
		{"token Secrets", "secrets", cache.TokenSecretSelector, cluster.TokenSecrets, &cluster.TokenSecretsLiveness},
	} {
		liveness, err := cache.NewLiveness(c.informer, cache.NewProbe(probe, c.resource, c.fieldSelector))
		*c.liveness, errs[i] = liveness, err
		p.caches = append(p.caches, cacheState{name: c.name, synced: c.informer.HasSynced, liveness: liveness})
		p.runs = append(p.runs, func(ctx context.Context) error {
			c.informer.RunWithContext(ctx)
			return nil
		})
	}
	return cluster, errors.Join(errs[:]...)
}

// tlsConfig requests a client certificate and requires none: discovery is public, and the handler of
// /authenticate refuses requests without one.
func (p *Process) tlsConfig() *tls.Config {
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

var errNotSynced = errors.New("the caches of bound objects have not synced yet: the API server has not answered, or does not allow to list them")

func (p *Process) probesHandler() http.Handler {
	ready := []kube.Check{
		{Name: "caches", Probe: func(r *http.Request) error {
			var errs []error
			for _, c := range p.caches {
				if !c.synced() {
					return errNotSynced
				}
				if err := c.liveness.Err(r.Context()); err != nil {
					errs = append(errs, fmt.Errorf("the cache of %s is not alive, objects are read from the API server: %w", c.name, err))
				}
			}
			return errors.Join(errs...)
		}},
		{Name: "certificate", Probe: func(*http.Request) error { return p.certificates.Ready() }},
	}
	if p.rights != nil {
		ready = append(ready, process.Rights(p.rights))
	}
	return process.ProbesHandler([]kube.Check{process.Ping()}, ready)
}
