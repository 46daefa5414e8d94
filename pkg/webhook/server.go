package webhook

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/klog/v2"

	"github.com/sakeeper/sakeeper/pkg/webhook/review"
)

const (
	// maxHeader is far more than the few lines that the API server sends.
	maxHeader = 16 << 10

	readHeaderTimeout = 5 * time.Second
	readTimeout       = 10 * time.Second
	// writeTimeout counts from the end of the header: reading the body, the longest timeout of
	// a webhook, and writing the answer.
	writeTimeout = readTimeout + review.MaxTimeout + 10*time.Second
	// idleTimeout is longer than the 90 s after which the API server closes an idle
	// connection: the API server cannot repeat a request on a connection that is being closed.
	idleTimeout = 3 * time.Minute
	// finishTimeout is how long Run waits for requests in flight at most.
	finishTimeout = writeTimeout
)

// Config configures a [Server]. All fields but ClientCAs, ClientNames, Drain and Shared are
// required.
type Config struct {
	// GetCertificate returns the current certificate. It is called for every handshake, and
	// concurrently.
	GetCertificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// Handlers decide the reviews of each path. A path begins with "/".
	Handlers map[string]review.Func
	// ClientCAs returns the CAs of the clients that may call. It is called for each request, and
	// concurrently; a pool that is empty or nil refuses all. A client without a certificate of
	// them, for the key usage of clients, gets the status 403. Nil: any client may call.
	ClientCAs func() *x509.CertPool
	// ClientNames are the clients that may call: the common name, a DNS name or a URI of the
	// certificate must be one of them, letter by letter. They need ClientCAs. Empty: any client
	// with a certificate of ClientCAs may call.
	ClientNames []string
	// Drain is how long the server goes on as usual after ctx has ended, so that API servers
	// and proxies notice that it stops. Zero: it does not go on.
	Drain time.Duration
	// Shared says that another process serves the same port (SO_REUSEPORT) when this one
	// stops. The listener is then closed before Drain begins, so that clients that are asked
	// to reconnect reach the other process: a connection that is made when Drain ends would
	// be lost.
	Shared bool
	// Registerer gets the server's metrics: one server per registerer.
	Registerer prometheus.Registerer
}

// Server answers admission reviews. Call Run once.
type Server struct {
	cfg      Config
	metrics  *metrics
	draining atomic.Bool
	inFlight review.InFlight
}

// New checks cfg and registers the metrics. Nothing is served before Run. It returns an error
// if a required field is missing, a path or handler is invalid, or the registerer has the
// metrics already.
func New(cfg Config) (*Server, error) {
	switch {
	case cfg.GetCertificate == nil, cfg.Registerer == nil:
		return nil, errors.New("webhook: GetCertificate and Registerer are required")
	case cfg.ClientCAs == nil && len(cfg.ClientNames) > 0:
		return nil, errors.New("webhook: ClientNames need ClientCAs")
	case slices.Contains(cfg.ClientNames, ""):
		return nil, errors.New("webhook: one of ClientNames is empty")
	case len(cfg.Handlers) == 0:
		return nil, errors.New("webhook: Handlers are required")
	}
	cfg.Handlers, cfg.ClientNames = maps.Clone(cfg.Handlers), slices.Clone(cfg.ClientNames)
	for path, handler := range cfg.Handlers {
		if !strings.HasPrefix(path, "/") || handler == nil {
			return nil, fmt.Errorf("webhook: path %q must begin with / and have a handler", path)
		}
	}
	m, err := newMetrics(cfg.Registerer, cfg.ClientCAs != nil)
	if err != nil {
		return nil, err
	}
	return &Server{cfg: cfg, metrics: m}, nil
}

// ServeHTTP answers one request, and logs and counts the answer. It implements [http.Handler]
// for tests and for servers with TLS of their own, which must request a certificate of the
// client if Config.ClientCAs is set.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	path, a := s.answer(w, r)
	if s.draining.Load() {
		w.Header().Set("Connection", "close")
	}
	a.Write(w)
	took := time.Since(began)
	s.metrics.observe(path, a.Result, took)
	a.Log(klog.FromContext(r.Context()).WithValues("path", path), took)
}

// answer also returns the path as metrics and logs show it.
func (s *Server) answer(w http.ResponseWriter, r *http.Request) (path string, a review.Answer) {
	handler, ok := s.cfg.Handlers[r.URL.Path]
	if path = r.URL.Path; !ok {
		path = otherPath
	}
	if err := s.checkClient(r); err != nil {
		s.metrics.refuse(err)
		return path, review.Refuse(http.StatusForbidden, err.Error())
	}
	if !ok {
		return path, review.Refuse(http.StatusNotFound, "there is no such path")
	}
	return path, review.Do(w, r, handler, &s.inFlight)
}

// Run serves on listener, which it closes, until ctx ends and then until the requests in
// flight are answered. It returns an error only if the listener fails.
func (s *Server) Run(ctx context.Context, listener net.Listener) error {
	logger := klog.FromContext(ctx).WithName("webhook")
	// Requests in flight when ctx ends are finished, so their contexts must not end.
	working := klog.NewContext(context.WithoutCancel(ctx), logger)
	server := &http.Server{
		Handler:           s,
		TLSConfig:         s.tlsConfig(),
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		BaseContext:       func(net.Listener) context.Context { return working },
		// It gets handshakes that fail, as when an API server does not trust the certificate.
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

// stop serves for the time of Drain, in which clients are asked to close their connections,
// and then finishes the requests in flight.
func (s *Server) stop(ctx context.Context, server *http.Server, listener net.Listener) {
	if s.cfg.Shared {
		_ = listener.Close() // before clients are asked to reconnect
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
