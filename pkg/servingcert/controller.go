package servingcert

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	admissionregistrationv1 "k8s.io/client-go/kubernetes/typed/admissionregistration/v1"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/internal/stopwatch"
	"github.com/sakeeper/sakeeper/pkg/internal/workqueue"
	"github.com/sakeeper/sakeeper/pkg/internal/writebackoff"
	"github.com/sakeeper/sakeeper/pkg/servingcert/pki"
)

// Name is the name of the controller's queue and logger, and part of its user agent.
const Name = "webhook-certificates"

const (
	// resyncInterval is the time between syncs without an event: what time alone changes takes
	// days, and a clock that jumps causes a sync at once. retryInterval is the same while
	// something is wrong that time may correct.
	resyncInterval = 10 * time.Minute
	retryInterval  = 5 * time.Second
	// maxDelay of the queue is short, because requests to the webhook may fail meanwhile.
	maxDelay = 10 * time.Second
)

// ConfigurationsClient patches webhook configurations.
type ConfigurationsClient interface {
	admissionregistrationv1.MutatingWebhookConfigurationsGetter
	admissionregistrationv1.ValidatingWebhookConfigurationsGetter
}

// Config configures a [Controller]. All fields are required, but for Serving, and one of
// MutatingName and ValidatingName with its informer.
type Config struct {
	// Client reads and updates the Secret; Configurations patches the webhook configurations.
	Client         typedcorev1.SecretsGetter
	Configurations ConfigurationsClient
	// SecretName is the Secret with the certificates.
	SecretName toolscache.ObjectName
	// MutatingName and ValidatingName are the configurations of this webhook. Empty: there is
	// none of that kind.
	MutatingName, ValidatingName string
	// Secrets, Mutating and Validating are informers for the objects with those names, made by
	// the functions [Secrets], [Mutating] and [Validating]. The caller runs them.
	Secrets              toolscache.TypedSharedIndexInformer[*Secret]
	Mutating, Validating toolscache.TypedSharedIndexInformer[*Configuration]
	// Hosts are the DNS names and IP addresses under which API servers call the webhook:
	// "<service>.<namespace>.svc", and the host of each URL. A webhook in the configurations
	// that calls another host is not changed.
	Hosts []string
	// Serving returns true while the process answers calls of API servers, but for what Ready
	// checks. An empty list of webhooks is filled in only then. Nil: always.
	Serving func() bool
	// Recorder gets events about the Secret.
	Recorder record.EventRecorder
	// Clock is that of the API server, because certificates are valid by its time: every
	// response to Client sets it (kube.ServerClock).
	Clock clock.PassiveClock
	// Registerer gets the metrics: one controller per registerer.
	Registerer prometheus.Registerer
}

// Controller keeps the certificates of the webhook. Call Run once; the other methods are safe for
// concurrent use.
type Controller struct {
	cfg     Config
	queue   *workqueue.Queue[key]
	synced  []toolscache.DoneChecker
	metrics *metrics
	status  atomic.Pointer[status]

	// Only sync reads and writes these.
	published  publication
	readySince time.Time
	backoff    *writebackoff.Tracker[string]
	repairedAt map[string]time.Time
	warnings   map[string]time.Time
}

// key is the only key of the queue: the Secret and the configurations are synced together.
type key struct{}

// status is the result of the last sync.
type status struct {
	serve   pki.Pair
	tls     *tls.Certificate
	ca      *x509.Certificate
	unready string
}

// New checks cfg, and registers the metrics and its handlers with the informers.
func New(cfg Config) (*Controller, error) {
	switch {
	case cfg.Client == nil, cfg.Configurations == nil, cfg.Secrets == nil, cfg.Recorder == nil, cfg.Clock == nil, cfg.Registerer == nil:
		return nil, fmt.Errorf("%s: Client, Configurations, Secrets, Recorder, Clock and Registerer are required", Name)
	case cfg.SecretName.Namespace == "", cfg.SecretName.Name == "":
		return nil, fmt.Errorf("%s: SecretName is required", Name)
	case cfg.MutatingName == "" && cfg.ValidatingName == "":
		return nil, fmt.Errorf("%s: MutatingName or ValidatingName is required", Name)
	case (cfg.MutatingName == "") != (cfg.Mutating == nil), (cfg.ValidatingName == "") != (cfg.Validating == nil):
		return nil, fmt.Errorf("%s: Mutating and Validating are required with their names", Name)
	}
	var err error
	if cfg.Hosts, err = checkHosts(cfg.Hosts); err != nil {
		return nil, err
	}
	c := &Controller{cfg: cfg, repairedAt: map[string]time.Time{}, warnings: map[string]time.Time{}}
	c.backoff = writebackoff.New[string]("webhook certificates", cfg.Clock, cfg.Registerer)
	c.status.Store(&status{unready: errStarting.Error()})
	if c.queue, err = workqueue.New(workqueue.Config[key]{Name: Name, Sync: c.sync, MaxDelay: maxDelay, Registerer: cfg.Registerer}); err != nil {
		return nil, err
	}
	if err := c.watch(); err != nil {
		return nil, err
	}
	if c.metrics, err = newMetrics(cfg.Registerer); err != nil {
		return nil, err
	}
	c.queue.Add(key{})
	return c, errors.Join(
		cfg.Registerer.Register(pki.ExpiryGauge("serving", func() *x509.Certificate { return c.status.Load().serve.Cert() })),
		cfg.Registerer.Register(pki.ExpiryGauge("ca", func() *x509.Certificate { return c.status.Load().ca })),
	)
}

func checkHosts(hosts []string) ([]string, error) {
	if len(hosts) == 0 {
		return nil, fmt.Errorf("%s: Hosts are required", Name)
	}
	var checked []string
	for _, host := range hosts {
		host = canonical(host)
		if net.ParseIP(host) == nil && len(validation.IsDNS1123Subdomain(host)) > 0 {
			return nil, fmt.Errorf("%s: %q is neither a DNS name nor an IP address", Name, host)
		}
		checked = append(checked, host)
	}
	return checked, nil
}

func (c *Controller) watch() error {
	secrets, err := workqueue.Watch(c.cfg.Secrets, workqueue.Events[*Secret]{Changed: c.enqueueSecret, Deleted: c.enqueueSecret})
	c.synced = append(c.synced, secrets)
	for _, informer := range []toolscache.TypedSharedIndexInformer[*Configuration]{c.cfg.Mutating, c.cfg.Validating} {
		if informer == nil {
			continue
		}
		checker, errWatch := workqueue.Watch(informer, workqueue.Events[*Configuration]{Changed: c.enqueueConfiguration, Deleted: c.enqueueConfiguration})
		c.synced, err = append(c.synced, checker), errors.Join(err, errWatch)
	}
	return err
}

// Run keeps the certificates until ctx ends, and returns nil then.
func (c *Controller) Run(ctx context.Context) error {
	var watching sync.WaitGroup
	defer watching.Wait()
	watching.Go(func() {
		stopwatch.New(c.cfg.Clock, c.cfg.Clock).WatchClocks(ctx, func() { c.queue.Add(key{}) })
	})
	return c.queue.Run(ctx, c.synced...)
}

var errStarting = errors.New("the secret and the webhook configurations have not been read yet")

// GetCertificate is for [tls.Config]. It returns an error while there is no certificate.
func (c *Controller) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	st := c.status.Load()
	if st.tls == nil {
		return nil, fmt.Errorf("no certificate to serve: %s", st.unready)
	}
	return st.tls, nil
}

// Ready returns nil while the configurations trust the certificate that is served, and else an
// error that says what is wrong.
func (c *Controller) Ready() error {
	st := c.status.Load()
	if st.unready != "" {
		return errors.New(st.unready)
	}
	return pki.CheckLifetime(st.serve.Cert(), c.cfg.Clock.Now())
}

func (c *Controller) sync(ctx context.Context, _ key) (time.Duration, error) {
	s := c.gather()
	p := decide(s)
	var waitSecret time.Duration
	if p.act.writes() {
		waitSecret = c.writeDelay(ctx, s, c.secretLabel(), "")
	}
	if p.act.writes() && waitSecret == 0 {
		// The response corrects a clock that was set, or that stood still while the machine
		// slept. Without it, a valid CA could look expired and be replaced.
		if err := c.syncClock(ctx); err != nil {
			return 0, err
		}
		s = c.gather()
		p = decide(s)
	}
	c.published = p.published
	c.recordWarnings(ctx, s, p)
	c.serve(ctx, s, p)
	klog.FromContext(ctx).V(4).Info("Synced the certificates", "action", p.act, "reason", p.reason)
	requeueAfter := resyncInterval
	if p.unready != "" || p.reason == reasonClockBehind {
		requeueAfter = retryInterval
	}
	var errSecret error
	if p.act.writes() && waitSecret == 0 {
		wait, err := c.writeSecret(ctx, s, p)
		if err == nil && wait == 0 {
			return requeueAfter, nil // its event publishes the bundle
		}
		waitSecret, errSecret = wait, err
	}
	waitBundles, errBundles := c.writeBundles(ctx, s, p)
	if waitSecret > 0 || waitBundles > 0 {
		requeueAfter = resyncInterval // the cause is known, and a sync would cost a request
	}
	return shortest(requeueAfter, waitSecret, waitBundles, p.fillDelay), errors.Join(errSecret, errBundles)
}

// syncClock reads the Secret, because every response of the API server sets the clock.
func (c *Controller) syncClock(ctx context.Context) error {
	_, err := c.cfg.Client.Secrets(c.cfg.SecretName.Namespace).Get(ctx, c.cfg.SecretName.Name, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("get secret %s: %w", c.cfg.SecretName, redact(err))
	}
	return nil
}

func (c *Controller) gather() state {
	s := state{now: c.cfg.Clock.Now(), hosts: c.cfg.Hosts, name: c.cfg.SecretName, serving: c.status.Load().serve, published: c.published}
	s.readySince = c.observeReady(s.now)
	if found, ok := cache.Get(c.cfg.Secrets, c.cfg.SecretName.String()); ok {
		s.found, s.contents = found, parse(found.Data)
	}
	add := func(informer toolscache.TypedSharedIndexInformer[*Configuration], kind, name string) {
		if informer == nil {
			return
		}
		s.configurationNames = append(s.configurationNames, (&Configuration{Kind: kind, ObjectMeta: nameOf(name)}).String())
		if found, ok := cache.Get(informer, name); ok {
			s.configurations = append(s.configurations, found)
		}
	}
	add(c.cfg.Mutating, kindMutating, c.cfg.MutatingName)
	add(c.cfg.Validating, kindValidating, c.cfg.ValidatingName)
	return s
}

// serve sets the certificate of the next handshakes.
func (c *Controller) serve(ctx context.Context, s state, p plan) {
	before := c.status.Load()
	next := &status{serve: p.serve, tls: p.serve.TLS(), ca: s.contents.ca.Cert(), unready: p.unready}
	c.status.Store(next)
	logger := klog.FromContext(ctx)
	if before.serve.String() != next.serve.String() {
		logger.Info("Serving a certificate", "old", before.serve.String(), "new", next.serve.String())
	}
	if before.unready != next.unready {
		logger.Info("Readiness changed", "waitingFor", next.unready)
	}
}

// shortest returns the shortest of the durations that are not zero.
func shortest(first time.Duration, others ...time.Duration) time.Duration {
	for _, d := range others {
		if d > 0 {
			first = min(first, d)
		}
	}
	return first
}

func (c *Controller) enqueueSecret(*Secret) { c.queue.Add(key{}) }

func (c *Controller) enqueueConfiguration(*Configuration) { c.queue.Add(key{}) }
