package webhook

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/klog/v2"
)

const (
	// maxBody is what the API server may have to say: it takes bodies of 3 MiB, a
	// review of an update holds the object twice, and the rest, which is who asks and
	// how, has a MiB. An object that JSON makes larger than that is refused.
	maxBody = 7 << 20
	// maxHeader is far more than the few lines that the API server sends.
	maxHeader = 16 << 10

	readHeaderTimeout = 5 * time.Second
	readTimeout       = 10 * time.Second
	// writeTimeout counts from the end of the header: reading, the longest time that a
	// webhook may be given, and sending the answer.
	writeTimeout = readTimeout + maxTimeout + 10*time.Second
	// idleTimeout is longer than the 90 s after which the API server closes a
	// connection. It cannot repeat a request that meets a connection on its way out.
	idleTimeout = 3 * time.Minute
	// finishTimeout bounds how long requests under way are waited for.
	finishTimeout = writeTimeout
)

// Config is what the server needs; all but Drain and Shared is required.
type Config struct {
	// GetCertificate returns the certificate of the moment, for every handshake.
	GetCertificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// Handlers are called by path, which begins with "/".
	Handlers map[string]Handler
	// Drain is how long the server goes on as usual once it was told to stop, so that
	// API servers and proxies see that it is going. Zero: not at all.
	Drain time.Duration
	// Shared: another process serves the same port (SO_REUSEPORT) when this one is told to
	// stop. The listener is then closed before the draining, so that whoever is sent away
	// comes to the other one: a connection that is made when the draining ends would be
	// lost.
	Shared bool
	// Registerer gets the server's metrics.
	Registerer prometheus.Registerer
}

// Server answers admission reviews. Run may be called once.
type Server struct {
	cfg      Config
	metrics  *metrics
	draining atomic.Bool
	held     atomic.Int64 // bytes of the bodies of requests under way
}

// New checks cfg. Nothing is served before Run.
func New(cfg Config) (*Server, error) {
	switch {
	case cfg.GetCertificate == nil, cfg.Registerer == nil:
		return nil, errors.New("webhook: GetCertificate and Registerer are required")
	case len(cfg.Handlers) == 0:
		return nil, errors.New("webhook: Handlers are required")
	}
	cfg.Handlers = maps.Clone(cfg.Handlers)
	for path, handler := range cfg.Handlers {
		if !strings.HasPrefix(path, "/") || handler == nil {
			return nil, fmt.Errorf("webhook: path %q must begin with / and have a handler", path)
		}
	}
	m, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, err
	}
	return &Server{cfg: cfg, metrics: m}, nil
}

// Run serves on listener, which it closes, until ctx ends and then until the requests
// under way are answered. It returns nil, unless the listener fails.
func (s *Server) Run(ctx context.Context, listener net.Listener) error {
	logger := klog.FromContext(ctx).WithName("webhook")
	// What is under way when ctx ends is finished, so it must not see that.
	working := klog.NewContext(context.WithoutCancel(ctx), logger)
	server := &http.Server{
		Handler:           s,
		TLSConfig:         &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: s.cfg.GetCertificate},
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		BaseContext:       func(net.Listener) context.Context { return working },
		// Handshakes that fail: an API server that does not trust the certificate.
		ErrorLog: slog.NewLogLogger(logr.ToSlogHandler(logger), slog.LevelInfo),
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		s.stop(working, server, listener)
	})
	logger.Info("Serving", "address", listener.Addr().String())
	if err := server.ServeTLS(listener, "", ""); !errors.Is(err, http.ErrServerClosed) {
		if stop() {
			return fmt.Errorf("serve on %s: %w", listener.Addr(), errors.Join(err, server.Close()))
		}
	}
	<-stopped
	logger.Info("Stopped serving")
	return nil
}

// stop lets clients go away by themselves for a while, and then finishes what is
// under way.
func (s *Server) stop(ctx context.Context, server *http.Server, listener net.Listener) {
	if s.cfg.Shared {
		_ = listener.Close() // before anybody is sent away
	}
	s.draining.Store(true)
	if s.cfg.Drain > 0 {
		timer := time.NewTimer(s.cfg.Drain)
		defer timer.Stop()
		<-timer.C
	}
	ctx, cancel := context.WithTimeout(ctx, finishTimeout)
	defer cancel()
	if server.Shutdown(ctx) != nil {
		_ = server.Close()
	}
}
