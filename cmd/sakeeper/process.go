package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"k8s.io/klog/v2"

	"github.com/sakeeper/sakeeper/pkg/kube"
	"github.com/sakeeper/sakeeper/pkg/signer"
)

// begin is the start of every server: it sets up logging and opens what people and
// probes look at, so that a bad address ends the start.
func begin(ctx context.Context, component string, logs *logOptions, servers *serverOptions) (context.Context, listeners, error) {
	capped, err := logs.apply()
	if err != nil {
		return ctx, listeners{}, err
	}
	logger := klog.Background()
	ctx = klog.NewContext(ctx, logger)
	logger.Info("Starting", "component", component, "version", buildVersion())
	if capped {
		logger.Info("Verbosity was reduced: above it, request bodies are logged, which hold tokens", "verbosity", maxVerbosity)
	}
	var l listeners
	var errMetrics, errProbes error
	l.metrics, errMetrics = servers.listen(ctx, "--metrics-bind-address", servers.metrics)
	l.probes, errProbes = listenForProbes(ctx, servers.probes)
	if err := errors.Join(errMetrics, errProbes); err != nil {
		return ctx, listeners{}, errors.Join(err, l.close())
	}
	return ctx, l, nil
}

// unlessStopped is err, but nil when ctx ended, which is how processes stop.
func unlessStopped(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return nil
}

// listenForProbes never shares a port: a probe is about one process.
func listenForProbes(ctx context.Context, address string) (net.Listener, error) {
	const flag = "--health-probe-bind-address"
	if path, ok := strings.CutPrefix(address, unixPrefix); ok {
		return signer.Socket{Flag: flag, Path: path, Mode: 0o600, Group: -1}.Listen(ctx)
	}
	return kube.Listen(ctx, flag, address)
}

// listeners are those of the two plain HTTP servers; nil where one is off.
type listeners struct{ metrics, probes net.Listener }

func (l listeners) close() error {
	var errs []error
	for _, listener := range []net.Listener{l.metrics, l.probes} {
		if listener != nil {
			errs = append(errs, listener.Close())
		}
	}
	return errors.Join(errs...)
}

// serve answers until ctx ends.
func (l listeners) serve(ctx context.Context, registry *prometheus.Registry, probes http.Handler) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return kube.Serve(ctx, l.metrics, metricsHandler(registry)) })
	group.Go(func() error { return kube.Serve(ctx, l.probes, probes) })
	return group.Wait()
}

// ping passes while the process answers.
func ping() kube.Check {
	return kube.Check{Name: "ping", Probe: func(*http.Request) error { return nil }}
}

func metricsHandler(registry *prometheus.Registry) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/metrics", kube.MetricsHandler(registry))
	return mux
}
