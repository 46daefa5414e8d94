package process

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"k8s.io/klog/v2"

	"github.com/sakeeper/sakeeper/cmd/sakeeper/options"
	"github.com/sakeeper/sakeeper/pkg/kube"
	"github.com/sakeeper/sakeeper/pkg/signer"
)

// Begin is the first step of every server: it sets up logging and opens the listeners for metrics
// and probes, so that the process ends at once if an address cannot be used. The context carries
// the logger. The caller must call Close or Serve of the listeners.
func Begin(ctx context.Context, component, version string, logs *options.Logs, servers *options.Servers) (context.Context, Listeners, error) {
	capped, err := logs.Apply()
	if err != nil {
		return ctx, Listeners{}, err
	}
	logger := klog.Background()
	ctx = klog.NewContext(ctx, logger)
	logger.Info("Starting", "component", component, "version", version)
	if capped {
		logger.Info("Reduced the verbosity: above it, client-go logs request bodies, which contain tokens", "verbosity", options.MaxVerbosity)
	}
	var l Listeners
	var errMetrics, errProbes error
	l.metrics, errMetrics = servers.Listen(ctx, "--metrics-bind-address", servers.Metrics)
	l.probes, errProbes = ListenForProbes(ctx, servers.Probes)
	if err := errors.Join(errMetrics, errProbes); err != nil {
		return ctx, Listeners{}, errors.Join(err, l.Close())
	}
	return ctx, l, nil
}

// UnlessStopped returns err, or nil if ctx has ended: an error that a shutdown causes is none.
func UnlessStopped(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return nil
}

// ListenForProbes opens a TCP address, or a unix socket. It never shares a port, because a probe is
// about one process.
func ListenForProbes(ctx context.Context, address string) (net.Listener, error) {
	const flag = "--health-probe-bind-address"
	if path, ok := strings.CutPrefix(address, options.UnixPrefix); ok {
		return signer.Socket{Flag: flag, Path: path, Mode: 0o600, Group: -1}.Listen(ctx)
	}
	return kube.Listen(ctx, flag, address)
}

// Listeners are those of the HTTP servers for metrics and for probes; nil if a server is off.
type Listeners struct{ metrics, probes net.Listener }

// Close closes the listeners of a process that does not get as far as Serve.
func (l Listeners) Close() error {
	var errs []error
	for _, listener := range []net.Listener{l.metrics, l.probes} {
		if listener != nil {
			errs = append(errs, listener.Close())
		}
	}
	return errors.Join(errs...)
}

// Serve serves metrics and probes until ctx ends, and closes the listeners.
func (l Listeners) Serve(ctx context.Context, registry *prometheus.Registry, probes http.Handler) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return kube.Serve(ctx, l.metrics, MetricsHandler(registry)) })
	group.Go(func() error { return kube.Serve(ctx, l.probes, probes) })
	return group.Wait()
}
