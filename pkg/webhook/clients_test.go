package webhook

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	admissionv1 "k8s.io/api/admission/v1"

	"github.com/sakeeper/sakeeper/pkg/servingcert/pki"
	"github.com/sakeeper/sakeeper/pkg/webhook/review"
)

// clientCA signs certificates of clients.
type clientCA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newClientCA(t *testing.T) clientCA {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	c := clientCA{}
	c.cert, c.key = c.sign(t, template, nil)
	return c
}

// sign signs a certificate; without a CA it signs itself.
func (c clientCA) sign(t *testing.T, template *x509.Certificate, change func(*x509.Certificate)) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(template)
	}
	parent, signer := c.cert, c.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// issue makes the certificate of the client "apiserver", changed by change.
func (c clientCA) issue(t *testing.T, change func(*x509.Certificate)) []tls.Certificate {
	t.Helper()
	cert, key := c.sign(t, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "apiserver"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"apiserver.example.com"}, URIs: []*url.URL{{Scheme: "spiffe", Host: "cluster", Path: "/apiserver"}},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, change)
	return []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: key}}
}

func (c clientCA) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(c.cert)
	return pool
}

// checked is a server that checks its clients.
type checked struct {
	url      string
	roots    *x509.CertPool
	registry *prometheus.Registry
	calls    atomic.Int32
}

func runChecked(t *testing.T, cas func() *x509.CertPool, names ...string) *checked {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &running{}
	if r.ca, err = pki.NewCA(time.Now()); err != nil {
		t.Fatal(err)
	}
	pair, err := r.ca.Issue([]string{"127.0.0.1"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	c := &checked{url: "https://" + listener.Addr().String() + path, roots: x509.NewCertPool(), registry: prometheus.NewRegistry()}
	c.roots.AddCert(r.ca.Cert())
	s, err := New(Config{
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return pair.TLS(), nil },
		Handlers: map[string]review.Func{path: func(ctx context.Context, r *admissionv1.AdmissionRequest) (*admissionv1.AdmissionResponse, error) {
			c.calls.Add(1)
			return allow(ctx, r)
		}},
		ClientCAs: cas, ClientNames: names, Registerer: c.registry,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Run(ctx, listener) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("ended with %v", err)
		}
	})
	return c
}

func (c *checked) client(t *testing.T, certificates []tls.Certificate) *http.Client {
	t.Helper()
	transport := &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: c.roots, Certificates: certificates, MinVersion: tls.VersionTLS12, ClientSessionCache: tls.NewLRUClientSessionCache(1)},
		ForceAttemptHTTP2: true,
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func (c *checked) ask(t *testing.T, client *http.Client) (code int, text string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.url, strings.NewReader(reviewBody))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

// TestClientsAreChecked: a client that may not call reaches no handler, and learns why.
func TestClientsAreChecked(t *testing.T) {
	ca := newClientCA(t)
	cases := map[string]struct {
		in         []tls.Certificate
		inNames    []string
		inPool     func() *x509.CertPool
		wantText   string // empty: it may call
		wantReason string
	}{
		"a certificate of the CA":               {in: ca.issue(t, nil)},
		"the common name":                       {in: ca.issue(t, nil), inNames: []string{"other", "apiserver"}},
		"a DNS name":                            {in: ca.issue(t, nil), inNames: []string{"apiserver.example.com"}},
		"a URI":                                 {in: ca.issue(t, nil), inNames: []string{"spiffe://cluster/apiserver"}},
		"no certificate":                        {wantText: "a client certificate is required", wantReason: noCertificate},
		"a certificate of another CA":           {in: newClientCA(t).issue(t, nil), wantText: "unknown authority", wantReason: untrustedCertificate},
		"a certificate that signs itself":       {in: clientCA{}.issue(t, nil), wantText: "unknown authority", wantReason: untrustedCertificate},
		"an expired certificate":                {in: ca.issue(t, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), wantText: "expired", wantReason: untrustedCertificate},
		"a certificate of a server":             {in: ca.issue(t, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }), wantText: "incompatible key usage", wantReason: untrustedCertificate},
		"another name":                          {in: ca.issue(t, nil), inNames: []string{"kubelet", "Apiserver", "example.com"}, wantText: "none of its names", wantReason: otherName},
		"the right name of another CA":          {in: newClientCA(t).issue(t, nil), inNames: []string{"apiserver"}, wantText: "unknown authority", wantReason: untrustedCertificate},
		"no CA, which is not those of the host": {in: ca.issue(t, nil), inPool: func() *x509.CertPool { return nil }, wantText: "unknown authority", wantReason: untrustedCertificate},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			pool := ca.pool
			if tc.inPool != nil {
				pool = tc.inPool
			}
			c := runChecked(t, pool, tc.inNames...)
			code, text := c.ask(t, c.client(t, tc.in))
			wantCode, wantCalls := http.StatusOK, int32(1)
			if tc.wantText != "" {
				wantCode, wantCalls = http.StatusForbidden, 0
			}
			if code != wantCode || !strings.Contains(text, tc.wantText) || c.calls.Load() != wantCalls {
				t.Errorf("got %d %s after %d calls, want %d %s", code, text, c.calls.Load(), wantCode, tc.wantText)
			}
			want := "# HELP sakeeper_webhook_refused_clients_total Requests of clients that may not call the webhook, by reason (no-certificate, untrusted-certificate, other-name).\n" +
				"# TYPE sakeeper_webhook_refused_clients_total counter\n"
			for _, reason := range []string{noCertificate, otherName, untrustedCertificate} {
				n := 0
				if reason == tc.wantReason {
					n = 1
				}
				want += fmt.Sprintf("sakeeper_webhook_refused_clients_total{reason=%q} %d\n", reason, n)
			}
			if err := testutil.GatherAndCompare(c.registry, strings.NewReader(want), "sakeeper_webhook_refused_clients_total"); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestAnotherClientCAHoldsOnOpenConnections: it also refuses what was verified before.
func TestAnotherClientCAHoldsOnOpenConnections(t *testing.T) {
	old, next := newClientCA(t), newClientCA(t)
	var current atomic.Pointer[x509.CertPool]
	current.Store(old.pool())
	c := runChecked(t, current.Load)
	first, second := c.client(t, old.issue(t, nil)), c.client(t, next.issue(t, nil))
	for _, want := range [][2]int{{http.StatusOK, http.StatusForbidden}, {http.StatusForbidden, http.StatusOK}} {
		a, _ := c.ask(t, first)
		b, _ := c.ask(t, second)
		if got := [2]int{a, b}; got != want {
			t.Errorf("the clients got %d, want %d", got, want)
		}
		current.Store(next.pool())
	}
	current.Store(old.pool())
	first.CloseIdleConnections()
	second.CloseIdleConnections() // the next connection resumes the session
	if code, _ := c.ask(t, second); code != http.StatusForbidden {
		t.Errorf("a resumed session got %d", code)
	}
}

// TestARequestWithoutTLSIsRefused where clients are checked: its server checks none.
func TestARequestWithoutTLSIsRefused(t *testing.T) {
	s, err := New(Config{
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, errBoom },
		Handlers:       map[string]review.Func{path: allow}, ClientCAs: x509.NewCertPool, Registerer: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	if w := serve(s, newRequest(reviewBody)); w.Code != http.StatusForbidden {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
}

func TestClientNamesAreChecked(t *testing.T) {
	for name, tc := range map[string]struct {
		in   Config
		want string
	}{
		"names without a CA": {in: Config{ClientNames: []string{"apiserver"}}, want: "webhook: ClientNames need ClientCAs"},
		"an empty name":      {in: Config{ClientNames: []string{"apiserver", ""}, ClientCAs: x509.NewCertPool}, want: "webhook: one of ClientNames is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			tc.in.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, errors.ErrUnsupported }
			tc.in.Handlers, tc.in.Registerer = map[string]review.Func{path: allow}, prometheus.NewRegistry()
			if _, err := New(tc.in); err == nil || err.Error() != tc.want {
				t.Errorf("got %v, want %s", err, tc.want)
			}
		})
	}
}
