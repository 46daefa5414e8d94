package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/klog/v2"

	"github.com/sakeeper/sakeeper/pkg/kube"
	"github.com/sakeeper/sakeeper/pkg/servingcert/pki"
	"github.com/sakeeper/sakeeper/pkg/webhook/review"
)

// running is a server on loopback and what its clients need.
type running struct {
	url  string
	ca   pki.Pair
	pair atomic.Pointer[pki.Pair]
	logs func() string
	stop context.CancelFunc
	done chan error
}

func run(t *testing.T, handler review.Func, drain time.Duration) *running {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &running{}
	if r.ca, err = pki.NewCA(time.Now()); err != nil {
		t.Fatal(err)
	}
	r.issue(t, "127.0.0.1")
	r.start(t, listener, Config{Handlers: map[string]review.Func{path: handler}, Drain: drain})
	return r
}

// start serves with the certificate of r.
func (r *running) start(t *testing.T, listener net.Listener, cfg Config) {
	t.Helper()
	r.url, r.done = "https://"+listener.Addr().String()+path, make(chan error, 1)
	cfg.Registerer = prometheus.NewRegistry()
	cfg.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		if pair := r.pair.Load(); pair != nil {
			return pair.TLS(), nil
		}
		return nil, errBoom
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	var logger klog.Logger
	logger, r.logs = bufferedLogger(t)
	ctx, cancel := context.WithCancel(klog.NewContext(t.Context(), logger))
	r.stop = cancel
	go func() {
		r.done <- s.Run(ctx, listener)
		close(r.done)
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-r.done; err != nil {
			t.Errorf("ended with %v", err)
		}
	})
}

func (r *running) issue(t *testing.T, host string) {
	t.Helper()
	pair, err := r.ca.Issue([]string{host}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	r.pair.Store(&pair)
}

// client trusts the CA; its connections are its own.
func (r *running) client(t *testing.T, http2 bool) *http.Client {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(r.ca.Cert())
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: http2}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func (r *running) post(ctx context.Context, client *http.Client, body io.Reader) (code int, text, proto string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url, body)
	if err != nil {
		return 0, "", "", err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := client.Do(request)
	if err != nil {
		return 0, "", "", err
	}
	defer func() { _ = response.Body.Close() }()
	data, err := io.ReadAll(response.Body)
	return response.StatusCode, string(data), response.Proto, err
}

func (r *running) expectAllowed(t *testing.T, client *http.Client, wantProto string) {
	t.Helper()
	code, text, proto, err := r.post(t.Context(), client, strings.NewReader(reviewBody))
	if err != nil || code != http.StatusOK || !strings.Contains(text, `"allowed":true`) || proto != wantProto {
		t.Errorf("got %d %s %s, error %v", code, proto, text, err)
	}
}

func TestServing(t *testing.T) {
	r := run(t, allow, 0)
	r.expectAllowed(t, r.client(t, false), "HTTP/1.1")
	r.expectAllowed(t, r.client(t, true), "HTTP/2.0")
}

func TestANewCertificateIsServed(t *testing.T) {
	r := run(t, allow, 0)
	r.expectAllowed(t, r.client(t, false), "HTTP/1.1")
	r.issue(t, "127.0.0.2")
	var mismatch x509.HostnameError
	if _, _, _, err := r.post(t.Context(), r.client(t, false), strings.NewReader(reviewBody)); !errors.As(err, &mismatch) {
		t.Errorf("error %v, want that the name does not match", err)
	}
	r.issue(t, "127.0.0.1")
	r.expectAllowed(t, r.client(t, false), "HTTP/1.1")
}

func TestWithoutACertificateHandshakesFailAndAreLogged(t *testing.T) {
	r := run(t, allow, 0)
	r.pair.Store(nil)
	if _, _, _, err := r.post(t.Context(), r.client(t, false), strings.NewReader(reviewBody)); err == nil {
		t.Error("no error")
	}
	r.stop()
	if err := <-r.done; err != nil {
		t.Errorf("ended with %v", err)
	}
	if !strings.Contains(r.logs(), "TLS handshake error") {
		t.Errorf("log:\n%s", r.logs())
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	r := run(t, allow, 0)
	client := r.client(t, false)
	client.Transport.(*http.Transport).TLSClientConfig.MaxVersion = tls.VersionTLS11
	client.Transport.(*http.Transport).TLSClientConfig.MinVersion = tls.VersionTLS10
	if _, _, _, err := r.post(t.Context(), client, strings.NewReader(reviewBody)); err == nil {
		t.Error("no error")
	}
}

func TestLargeRequestsAreRefusedOnTheWire(t *testing.T) {
	r := run(t, allow, 0)
	large := bytes.Repeat([]byte(" "), 10<<20)
	cases := map[string]io.Reader{
		"announced":   bytes.NewReader(large),
		"unannounced": io.MultiReader(bytes.NewReader(large)),
	}
	for name, body := range cases {
		t.Run(name, func(t *testing.T) {
			code, text, _, err := r.post(t.Context(), r.client(t, false), body)
			// The server does not read to the end, so that a client may fail to write first.
			if err == nil && code != http.StatusRequestEntityTooLarge {
				t.Errorf("got %d %s", code, text)
			}
		})
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.url, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("X-Large", strings.Repeat("x", 64<<10))
	response, err := r.client(t, false).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("a large header: %s", response.Status)
	}
	r.expectAllowed(t, r.client(t, false), "HTTP/1.1") // and it still serves
}

// TestStopFinishesRequestsInFlight stops the server while a handler works.
func TestStopFinishesRequestsInFlight(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		entered, leave := make(chan struct{}), make(chan struct{})
		ended := errors.New("the context ended")
		r := run(t, func(ctx context.Context, _ *admissionv1.AdmissionRequest) (*admissionv1.AdmissionResponse, error) {
			close(entered)
			<-leave
			if ctx.Err() != nil {
				return nil, ended
			}
			return &admissionv1.AdmissionResponse{Allowed: true}, nil
		}, 0)
		answered := make(chan struct{})
		client := r.client(t, http2)
		go func() {
			defer close(answered)
			code, text, _, err := r.post(context.WithoutCancel(t.Context()), client, strings.NewReader(reviewBody))
			if err != nil || !strings.Contains(text, `"allowed":true`) {
				t.Errorf("got %d %s, error %v", code, text, err)
			}
		}()
		<-entered
		r.stop()
		// The port is closed while the last request is served.
		for {
			connection, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimSuffix(strings.TrimPrefix(r.url, "https://"), path))
			if err != nil {
				break
			}
			_ = connection.Close()
		}
		select {
		case err := <-r.done:
			t.Errorf("stopped before the answer: %v", err)
		default:
		}
		close(leave)
		<-answered
		if err := <-r.done; err != nil {
			t.Errorf("ended with %v", err)
		}
	}
}

// whileDraining calls try with ever longer times of Drain, until one suffices: on a busy machine the
// server may have ended before the clients have done what is tested.
func whileDraining(t *testing.T, drain time.Duration, try func(drain time.Duration) (sufficed bool)) {
	t.Helper()
	for ; !try(drain); drain *= 4 {
		if drain > 30*time.Second {
			t.Fatalf("the test did not end within %v", drain)
		}
	}
}

// TestADrainingServerAsksClientsToReconnect expects new connections while the server drains.
func TestADrainingServerAsksClientsToReconnect(t *testing.T) {
	whileDraining(t, time.Second, func(drain time.Duration) bool { return asksToReconnect(t, drain) })
}

func asksToReconnect(t *testing.T, drain time.Duration) (sufficed bool) {
	t.Helper()
	r := run(t, allow, drain)
	client := r.client(t, false)
	var ended time.Time // not before that
	fresh := func() bool {
		t.Helper()
		var reused bool
		trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) { reused = info.Reused }}
		code, text, _, err := r.post(httptrace.WithClientTrace(t.Context(), trace), client, strings.NewReader(reviewBody))
		if (err != nil || code != http.StatusOK) && (ended.IsZero() || time.Now().Before(ended)) {
			t.Fatalf("got %d %s, error %v", code, text, err)
		}
		return !reused
	}
	fresh()
	if fresh() {
		t.Error("a connection was not kept")
	}
	ended = time.Now().Add(drain)
	r.stop()
	for seen := 0; seen < 2; { // the kept connection is used once more, then each is new
		if fresh() {
			seen++
		}
		if !time.Now().Before(ended) {
			return false
		}
	}
	return true
}

// TestASharedPortIsHandedOver: after the stop, new connections reach the other process only,
// while the first one serves the connections that it has, and asks their clients to reconnect.
func TestASharedPortIsHandedOver(t *testing.T) {
	whileDraining(t, 5*time.Second, func(drain time.Duration) bool { return handsOver(t, drain) })
}

func handsOver(t *testing.T, drain time.Duration) (sufficed bool) {
	t.Helper()
	var byOld atomic.Int64
	count := func(ctx context.Context, request *admissionv1.AdmissionRequest) (*admissionv1.AdmissionResponse, error) {
		byOld.Add(1)
		return allow(ctx, request)
	}
	begin := func(address string, ca pki.Pair, handler review.Func, drain time.Duration) *running {
		listener, err := kube.ListenShared(t.Context(), "test", address)
		if err != nil {
			t.Fatal(err)
		}
		r := &running{ca: ca}
		r.issue(t, "127.0.0.1")
		r.start(t, listener, Config{Handlers: map[string]review.Func{path: handler}, Drain: drain, Shared: true})
		return r
	}
	ca, err := pki.NewCA(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	old := begin("127.0.0.1:0", ca, count, drain)
	kept := old.client(t, true)
	old.expectAllowed(t, kept, "HTTP/2.0")
	next := begin(strings.TrimSuffix(strings.TrimPrefix(old.url, "https://"), path), ca, allow, 0)

	ended := time.Now().Add(drain) // not before that
	old.stop()
	for inARow := 0; inARow < 20; inARow++ { // half of them reached the old server before
		before := byOld.Load()
		// A connection that the old server had not accepted when it closed its listener is reset.
		code, text, _, err := next.post(t.Context(), next.client(t, true), strings.NewReader(reviewBody))
		if wasReset := errors.Is(err, syscall.ECONNRESET); !wasReset && (err != nil || code != http.StatusOK) {
			t.Errorf("got %d %s, error %v", code, text, err)
		} else if wasReset || byOld.Load() != before {
			inARow = 0
		}
		if !time.Now().Before(ended) {
			return false
		}
	}
	before := byOld.Load()
	next.expectAllowed(t, kept, "HTTP/2.0")
	if byOld.Load() != before+1 {
		if !time.Now().Before(ended) {
			return false
		}
		t.Error("a connection was not kept")
	}
	for range 20 { // one of the next requests needs a new connection
		next.expectAllowed(t, kept, "HTTP/2.0")
	}
	if byOld.Load() > before+10 {
		t.Error("a client was not asked to reconnect")
	}
	return true
}

func TestRunFailsWithItsListener(t *testing.T) {
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = listener.Close()
	s, _ := newServer(t, allow)
	if err := s.Run(t.Context(), listener); !errors.Is(err, net.ErrClosed) {
		t.Errorf("ended with %v", err)
	}
}

func TestNewRefusesAnIncompleteConfig(t *testing.T) {
	complete := func() Config {
		s, _ := newServer(t, allow)
		cfg := s.cfg
		cfg.Registerer = prometheus.NewRegistry()
		return cfg
	}
	cases := map[string]func(*Config){
		"no certificate":       func(c *Config) { c.GetCertificate = nil },
		"no registerer":        func(c *Config) { c.Registerer = nil },
		"no handlers":          func(c *Config) { c.Handlers = nil },
		"a nil handler":        func(c *Config) { c.Handlers = map[string]review.Func{"/": nil} },
		"a path without slash": func(c *Config) { c.Handlers = map[string]review.Func{"mutate": allow} },
		"metrics twice":        func(c *Config) { _, c.Registerer = newServer(t, allow) },
	}
	for name, spoil := range cases {
		t.Run(name, func(t *testing.T) {
			cfg := complete()
			spoil(&cfg)
			if _, err := New(cfg); err == nil {
				t.Error("no error")
			}
		})
	}
	if _, err := New(complete()); err != nil {
		t.Error(err)
	}
}
