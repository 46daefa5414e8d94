package webhook

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/klog/v2"

	"github.com/sakeeper/sakeeper/pkg/servingcert/pki"
	"github.com/sakeeper/sakeeper/pkg/webhook/review"
)

// pipes is a listener without a network, so that its connections use the clock of the test.
type pipes struct {
	connections chan net.Conn
	closed      chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.connections:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { close(p.closed); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 443} }

func (p *pipes) dial() net.Conn {
	ours, theirs := net.Pipe()
	p.connections <- theirs
	return ours
}

// served runs a server on pipes, and calls test with its listener and a client TLS config.
func served(t *testing.T, test func(t *testing.T, p *pipes, trust *tls.Config)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := &pipes{connections: make(chan net.Conn), closed: make(chan struct{})}
		ca, err := pki.NewCA(time.Now())
		if err != nil {
			t.Fatal(err)
		}
		pair, err := ca.Issue([]string{"127.0.0.1"}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		s, err := New(Config{
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return pair.TLS(), nil },
			Handlers:       map[string]review.Func{path: allow}, Registerer: prometheus.NewRegistry(),
		})
		if err != nil {
			t.Fatal(err)
		}
		logger, _ := bufferedLogger(t)
		ctx, stop := context.WithCancel(klog.NewContext(t.Context(), logger))
		done := make(chan error)
		go func() { done <- s.Run(ctx, p) }()
		roots := x509.NewCertPool()
		roots.AddCert(ca.Cert())
		test(t, p, &tls.Config{RootCAs: roots, ServerName: "127.0.0.1", MinVersion: tls.VersionTLS12})
		stop()
		if err := <-done; err != nil {
			t.Errorf("ended with %v", err)
		}
	})
}

// TestSlowClientsAreDisconnected after the timeout of each part of a request.
func TestSlowClientsAreDisconnected(t *testing.T) {
	const header = "POST " + path + " HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
	cases := map[string]struct {
		// in is what the client sends; empty: not even a handshake.
		in         string
		want       time.Duration
		wantAnswer string
	}{
		"no handshake":               {want: 5 * time.Second},
		"a header without an end":    {in: header, want: 5 * time.Second},
		"no body":                    {in: header + "Content-Length: 100\r\n\r\n", want: 10 * time.Second, wantAnswer: "the body cannot be read"},
		"half of a body":             {in: header + "Content-Length: 100\r\n\r\n{\"apiVersion\"", want: 10 * time.Second, wantAnswer: "the body cannot be read"},
		"one request, and then none": {in: header + "Content-Length: 2\r\n\r\n{}", want: 3 * time.Minute, wantAnswer: "must be of kind AdmissionReview"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			served(t, func(t *testing.T, p *pipes, trust *tls.Config) {
				began := time.Now()
				conn := p.dial()
				defer func() { _ = conn.Close() }()
				if tc.in != "" {
					secured := tls.Client(conn, trust)
					if err := secured.HandshakeContext(t.Context()); err != nil {
						t.Fatal(err)
					}
					if _, err := secured.Write([]byte(tc.in)); err != nil {
						t.Fatal(err)
					}
					conn = secured
				}
				answer, err := io.ReadAll(conn)
				if took := time.Since(began); took != tc.want || err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Errorf("the end came after %v, error %v; want %v", took, err, tc.want)
				}
				if !strings.Contains(string(answer), tc.wantAnswer) || tc.wantAnswer == "" && len(answer) > 0 {
					t.Errorf("answer %q, want %q", answer, tc.wantAnswer)
				}
			})
		})
	}
}

// TestASlowBodyOverHTTP2 blocks one stream of a connection, as an API server would.
func TestASlowBodyOverHTTP2(t *testing.T) {
	served(t, func(t *testing.T, p *pipes, trust *tls.Config) {
		transport := &http.Transport{
			TLSClientConfig: trust, ForceAttemptHTTP2: true,
			DialContext: func(context.Context, string, string) (net.Conn, error) { return p.dial(), nil },
		}
		defer transport.CloseIdleConnections()
		body, sender := io.Pipe()
		defer func() { _ = sender.Close() }()
		go func() { _, _ = sender.Write([]byte(`{"apiVersion"`)) }()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://127.0.0.1"+path, body)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", "application/json")
		began := time.Now()
		response, err := transport.RoundTrip(request)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = response.Body.Close() }()
		text, err := io.ReadAll(response.Body)
		if took := time.Since(began); took != 10*time.Second || err != nil || response.StatusCode != http.StatusBadRequest || response.ProtoMajor != 2 {
			t.Errorf("after %v: %s %s %s, error %v", took, response.Proto, response.Status, text, err)
		}
	})
}
