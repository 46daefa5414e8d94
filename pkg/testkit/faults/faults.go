// Package faults is a proxy between a client and an API server that injects faults, such as
// errors, broken connections and delays, while a test runs.
//
// Requests for which no fault is injected pass unchanged, and watches are streamed. Clients
// need no credentials: the proxy uses its own. It listens on loopback, with TLS and HTTP/2,
// so that a broken connection ends all its requests, as between a real client and server.
package faults

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Proxy is a running proxy. Its methods may be called concurrently.
type Proxy struct {
	server   *httptest.Server
	upstream http.Handler

	mu         sync.Mutex
	injections []*Injection
	requests   []Request
	streams    map[*stream]struct{}
}

// Start starts a proxy for the API server of upstream. It sends every request with the
// credentials of upstream.
func Start(upstream *rest.Config) (*Proxy, error) {
	transport, err := rest.TransportFor(upstream)
	if err != nil {
		return nil, fmt.Errorf("faults: %w", err)
	}
	host := upstream.Host
	if !strings.Contains(host, "://") {
		host = "https://" + host
	}
	target, err := url.Parse(host)
	if err != nil {
		return nil, fmt.Errorf("faults: %w", err)
	}
	p := &Proxy{streams: map[*stream]struct{}{}}
	silent := log.New(io.Discard, "", 0) // errors are intended here
	p.upstream = &httputil.ReverseProxy{
		Rewrite:        func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport:      transport,
		FlushInterval:  -1,
		ModifyResponse: p.trackWatch,
		// While the API server cannot be reached, the proxy cannot either.
		ErrorHandler: func(_ http.ResponseWriter, r *http.Request, _ error) { reset(r) },
		ErrorLog:     silent,
	}
	p.server = httptest.NewUnstartedServer(http.HandlerFunc(p.serve))
	p.server.EnableHTTP2 = true
	p.server.Config.ErrorLog = silent
	p.server.Config.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
		return context.WithValue(ctx, connKey{}, conn)
	}
	p.server.StartTLS()
	return p, nil
}

// Close lifts every fault, and closes the proxy and all connections to it.
func (p *Proxy) Close() {
	p.mu.Lock()
	injections := p.injections
	p.mu.Unlock()
	for _, i := range injections {
		i.Lift()
	}
	p.server.CloseClientConnections()
	p.server.Close()
}

// Config returns the configuration of a client that goes through the proxy.
func (p *Proxy) Config() *rest.Config {
	return &rest.Config{Host: p.server.URL, QPS: -1, TLSClientConfig: rest.TLSClientConfig{CAData: p.ca()}}
}

// Kubeconfig writes a kubeconfig of a client that goes through the proxy to path.
func (p *Proxy) Kubeconfig(path string) error {
	return clientcmd.WriteToFile(clientcmdapi.Config{
		CurrentContext: "proxy",
		Contexts:       map[string]*clientcmdapi.Context{"proxy": {Cluster: "proxy", AuthInfo: "proxy"}},
		Clusters:       map[string]*clientcmdapi.Cluster{"proxy": {Server: p.server.URL, CertificateAuthorityData: p.ca()}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{"proxy": {}},
	}, path)
}

func (p *Proxy) ca() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.server.Certificate().Raw})
}

// Requests returns all requests so far, in the order in which they came.
func (p *Proxy) Requests() []Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clip(p.requests)
}

// Count counts requests by [Request.Kind].
func Count(requests []Request) map[string]int {
	counts := map[string]int{}
	for _, r := range requests {
		counts[r.Kind()]++
	}
	return counts
}

// Watches returns the number of open watches.
func (p *Proxy) Watches() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.streams)
}

// CutWatches ends every open watch, as an API server does after some minutes, and returns
// their number.
func (p *Proxy) CutWatches() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	for s := range p.streams {
		s.cut()
	}
	return len(p.streams)
}

func (p *Proxy) serve(w http.ResponseWriter, r *http.Request) {
	request := read(r)
	ctx, cancel := context.WithCancel(context.WithValue(r.Context(), requestKey{}, request))
	defer cancel()
	r = r.WithContext(context.WithValue(ctx, cancelKey{}, cancel))
	p.mu.Lock()
	p.requests = append(p.requests, request)
	injection := p.injectionFor(request)
	p.mu.Unlock()
	if injection == nil {
		p.upstream.ServeHTTP(w, r)
		return
	}
	injection.hits.Add(1)
	injection.fault.serve(w, r, injection.lifted, p.upstream)
}

// injectionFor returns the newest injection that matches request, or nil. The caller holds
// p.mu.
func (p *Proxy) injectionFor(request Request) *Injection {
	for _, i := range slices.Backward(p.injections) {
		if i.match(request) {
			return i
		}
	}
	return nil
}

// trackWatch registers the response to a watch in p.streams.
func (p *Proxy) trackWatch(response *http.Response) error {
	ctx := response.Request.Context()
	request, _ := ctx.Value(requestKey{}).(Request)
	cancel, _ := ctx.Value(cancelKey{}).(context.CancelFunc)
	if request.Verb != "watch" || response.StatusCode != http.StatusOK {
		return nil
	}
	s := &stream{ReadCloser: response.Body, proxy: p, request: request, cancel: cancel, done: ctx.Done()}
	p.mu.Lock()
	p.streams[s] = struct{}{}
	p.mu.Unlock()
	response.Body = s
	return nil
}

type (
	connKey    struct{}
	requestKey struct{}
	cancelKey  struct{}
)

// stream is the response body of a watch.
type stream struct {
	io.ReadCloser

	proxy   *Proxy
	request Request
	cancel  context.CancelFunc
	done    <-chan struct{}
	ended   bool // guarded by proxy.mu
}

// Read returns what the API server sends, but not while a [Silence] matches the watch.
func (s *stream) Read(buffer []byte) (int, error) {
	n, err := s.ReadCloser.Read(buffer)
	for lifted := s.silence(); lifted != nil; lifted = s.silence() {
		select {
		case <-lifted:
		case <-s.done:
			return 0, s.end(io.ErrUnexpectedEOF)
		}
	}
	if err != nil {
		return n, s.end(err)
	}
	return n, nil
}

// silence returns a channel that is closed when the [Silence] that matches the watch is
// lifted, or nil if there is none.
func (s *stream) silence() <-chan struct{} {
	s.proxy.mu.Lock()
	defer s.proxy.mu.Unlock()
	if i := s.proxy.injectionFor(s.request); i != nil && i.fault.holdsStreams && !s.ended {
		return i.lifted
	}
	return nil
}

// end returns err, or io.EOF if the watch was cut.
func (s *stream) end(err error) error {
	s.proxy.mu.Lock()
	defer s.proxy.mu.Unlock()
	if s.ended {
		return io.EOF
	}
	return err
}

// cut ends the watch. The caller holds proxy.mu.
func (s *stream) cut() {
	s.ended = true
	s.cancel()
}

// Close implements [io.Closer].
func (s *stream) Close() error {
	s.proxy.mu.Lock()
	delete(s.proxy.streams, s)
	s.proxy.mu.Unlock()
	return s.ReadCloser.Close()
}

// reset closes the connection of r with an RST.
func reset(r *http.Request) {
	conn, _ := r.Context().Value(connKey{}).(net.Conn)
	if secured, ok := conn.(*tls.Conn); ok {
		conn = secured.NetConn()
	}
	if plain, ok := conn.(*net.TCPConn); ok {
		_ = plain.SetLinger(0) // the connection may be closed
		_ = plain.Close()
	}
	panic(http.ErrAbortHandler)
}
