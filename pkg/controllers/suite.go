package controllers

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/cabundle"
	"github.com/sakeeper/sakeeper/pkg/internal/metrics"
	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/kube"
	"github.com/sakeeper/sakeeper/pkg/kube/rights"
)

// Component is the source of the events of a suite, and the beginning of its clients' user agent
// if [Options.Config] has none.
const Component = "sakeeper-controllers"

// Suite runs controllers. Its methods may be called concurrently; Run may be called once.
type Suite struct {
	options Options
	client  kubernetes.Interface
	// rights sees the responses to all requests of the suite.
	rights *rights.Monitor

	began atomic.Bool

	mu     sync.Mutex
	loaded bool
	keys   Source[*keys.Set]       // nil if no controller makes tokens
	ca     Source[cabundle.Bundle] // nil if no controller needs it
	// verifiedCA is ca, unless changes of it are used without a check.
	verifiedCA *verifiedCA
	parts      *parts // nil until they are made
	work       bool   // the controllers were started
}

// New checks options, and returns everything that is wrong with them in one error. It does no I/O
// and starts no goroutine.
func New(options Options) (*Suite, error) {
	setDefaults(&options)
	if err := options.validate(); err != nil {
		return nil, err
	}
	options.Config = rest.CopyConfig(options.Config)
	if options.Config.QPS == 0 {
		options.Config.QPS = -1
	}
	if options.Config.UserAgent == "" {
		options.Config.UserAgent = Component
	}
	kube.PreferProtobuf(options.Config)
	enabled, _ := options.Enabled() // validate has reported the error
	monitor, err := rights.Follow(options.Config, roles(enabled)...)
	if err != nil {
		return nil, fmt.Errorf("controllers: Config: %w", err)
	}
	client, err := kubernetes.NewForConfig(options.Config)
	if err != nil {
		return nil, fmt.Errorf("controllers: Config: %w", err)
	}
	return &Suite{options: options, client: client, rights: monitor}, nil
}

// Load reads the files and other sources of keys and certificates, and returns everything that is
// wrong with them in one error. Run does that at its beginning: call Load right before Run to tell
// bad files from what goes wrong later.
func (s *Suite) Load(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.loaded {
		return nil
	}
	enabled, _ := s.options.Enabled() // New has reported the error
	var errs []error
	if s.options.NeedsKeys() {
		source, err := s.options.Keys.open(ctx, s.client)
		s.keys, errs = source, append(errs, err)
	}
	ca := s.options.RootCA
	if ca == nil {
		ca = caOfConnection(s.options.Config)
	}
	if s.options.NeedsRootCA() || enabled[nameTokenRequest] {
		source, err := ca.open()
		if err == nil && !s.options.RootCAUnverified {
			s.verifiedCA = newVerifiedCA(source, verifyServer(s.options.Config))
			source = s.verifiedCA
		}
		s.ca, errs = source, append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		err = errors.Join(err, closeSource(s.keys), closeSource(s.ca))
		s.keys, s.ca = nil, nil
		return err
	}
	s.loaded = true
	return nil
}

// Run works until ctx ends, and returns nil then, after the last goroutine of the suite has ended.
// It reads files first, and fails if that does ([Suite.Load]); waits for the API server for as long
// as it takes, and fails if that is too old ([kube.ErrServerTooOld]); and runs the controllers while
// [Options.Elect] lets it.
func (s *Suite) Run(ctx context.Context) error {
	if s.began.Swap(true) {
		return errors.New("controllers: the suite was run before")
	}
	if err := s.Load(ctx); err != nil {
		return err
	}
	defer func() { _ = errors.Join(closeSource(s.keys), closeSource(s.ca)) }() // nothing is lost by it
	recorder := s.options.Recorder
	startEvents := func() {}
	if recorder == nil {
		events := kube.NewEvents(ctx, Component)
		defer events.Shutdown()
		recorder, startEvents = events, func() { events.Start(s.client.CoreV1()) }
	}
	parts, err := newParts(s.options, s.client, recorder, s.keys, s.ca)
	if err != nil {
		return err
	}
	defer parts.discard()
	if !s.warm() {
		if err := parts.makeControllers(); err != nil {
			return err
		}
	}
	s.followReloads(recorder)
	s.rights.OnMissing(func(text string) {
		recorder.Event(s.options.Process, corev1.EventTypeWarning, api.ReasonMissingRight, text)
	})
	s.rights.OnlyWhile(parts.needs)
	s.mu.Lock()
	s.parts = parts
	s.mu.Unlock()

	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.rights.Run(ctx) })
	if s.keys != nil {
		group.Go(func() error { return s.keys.Run(ctx) })
	}
	if s.ca != nil {
		group.Go(func() error { return s.ca.Run(ctx) })
	}
	group.Go(func() error {
		err := kube.WaitForServer(ctx, s.client.Discovery().RESTClient(), s.options.Config.Host)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // stopped before the API server answered
		}
		if err != nil {
			return err
		}
		startEvents()
		if s.warm() {
			parts.start(ctx, group)
		}
		if s.options.Elect != nil {
			return s.options.Elect(ctx, s.lead)
		}
		return s.lead(ctx)
	})
	return group.Wait()
}

// warm returns true if informers run while another process leads. The controllers are made when this
// process leads: before, their queues would only grow.
func (s *Suite) warm() bool { return s.options.WarmStandby && s.options.Elect != nil }

// lead runs the controllers.
func (s *Suite) lead(ctx context.Context) error {
	if s.warm() {
		if err := s.parts.makeControllers(); err != nil {
			return err
		}
	}
	s.mu.Lock()
	s.work = true
	s.mu.Unlock()
	if s.ca != nil {
		beginCA(ctx, s.client, s.parts.recorder, s.ca, s.verifiedCA)
	}
	group, ctx := errgroup.WithContext(ctx)
	if s.verifiedCA != nil {
		group.Go(func() error { return s.verifiedCA.follow(ctx) })
	}
	group.Go(func() error { return s.parts.run(ctx) })
	group.Go(func() error { return s.parts.expectRights(ctx, s.rights) })
	return group.Wait()
}

// followReloads counts and reports changed files that cannot be used.
func (s *Suite) followReloads(recorder record.EventRecorder) {
	failures := kube.NewReloadFailures(s.options.Registerer, "keys", "ca")
	report := func(err error) {
		recorder.Eventf(s.options.Process, corev1.EventTypeWarning, api.ReasonReloadFailed, "The last good value stays in use: %v", err)
	}
	if s.keys != nil {
		s.keys.OnError(failures.Count("keys", report))
		metrics.Shared(s.options.Registerer, keys.NewCollector(s.keys.Get))
	}
	if s.verifiedCA != nil {
		refused := failures.Count("ca", nil)
		s.verifiedCA.warn = func(verdict caVerdict, text string) {
			reason := api.ReasonRootCAUnverified
			if verdict == refuseCA {
				reason = api.ReasonRootCARefused
				refused(errors.New(text))
			}
			recorder.Event(s.options.Process, corev1.EventTypeWarning, reason, text)
		}
	}
	if s.ca != nil {
		s.ca.OnError(failures.Count("ca", report))
	}
}

// Start is Run, under the name that a controller-runtime manager calls.
func (s *Suite) Start(ctx context.Context) error { return s.Run(ctx) }

// NeedLeaderElection returns true unless [Options.Elect] is set: a controller-runtime manager then
// starts the suite only while the manager is elected.
func (s *Suite) NeedLeaderElection() bool { return s.options.Elect == nil }

// Ready returns nil if everything that existed when the controllers started was handled once,
// tokens can be written, and no right is known to be missing, and otherwise an error that names what
// is not ready.
func (s *Suite) Ready() error {
	if err := s.rights.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	parts, work, verified := s.parts, s.work, s.verifiedCA
	s.mu.Unlock()
	if parts == nil || !work {
		return errNotStarted
	}
	if verified != nil {
		if err := verified.Ready(); err != nil {
			return err
		}
	}
	return parts.ready()
}

var (
	errNotStarted = errors.New("the controllers are not started yet")
	errStarting   = errors.New("the objects that existed at the start are not all handled yet")
)
