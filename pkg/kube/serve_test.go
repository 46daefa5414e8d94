package kube

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sakeeper/sakeeper/pkg/testkit/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

var errBoom = errors.New("boom")

func TestProbe(t *testing.T) {
	good := func(*http.Request) error { return nil }
	bad := func(*http.Request) error { return errBoom }
	cases := map[string]struct {
		in       []Check
		wantCode int
		wantBody string
	}{
		"no checks":       {wantCode: http.StatusOK},
		"all is well":     {in: []Check{{Name: "ping", Probe: good}, {Name: "queue", Probe: good}}, wantCode: http.StatusOK, wantBody: "[+] ping: ok\n[+] queue: ok\n"},
		"one check warns": {in: []Check{{Name: "ping", Probe: good}, {Name: "rights", Probe: bad, Warn: true}, {Name: "last", Probe: good, Warn: true}}, wantCode: http.StatusOK, wantBody: "[+] ping: ok\n[!] rights: boom\n[+] last: ok\n"},
		"one check says":  {in: []Check{{Name: "ping", Probe: good}, {Name: "queue", Probe: bad}, {Name: "last", Probe: good}}, wantCode: http.StatusServiceUnavailable, wantBody: "[+] ping: ok\n[-] queue: boom\n[+] last: ok\n"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			w := httptest.NewRecorder()
			Probe(tc.in...).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/livez", nil))
			if w.Code != tc.wantCode {
				t.Errorf("code %d, want %d", w.Code, tc.wantCode)
			}
			if diff := cmp.Diff(tc.wantBody, w.Body.String()); diff != "" {
				t.Errorf("body (-want +got):\n%s", diff)
			}
		})
	}
}

func TestListen(t *testing.T) {
	t.Run("0 is off", func(t *testing.T) {
		if listener, err := Listen(t.Context(), "--some-address", "0"); listener != nil || err != nil {
			t.Errorf("got %v, %v", listener, err)
		}
	})
	t.Run("a shared port is for those who share", func(t *testing.T) {
		first, err := ListenShared(t.Context(), "--some-address", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		address := first.Addr().String()
		second, err := ListenShared(t.Context(), "--some-address", address)
		if err != nil {
			t.Fatal(err)
		}
		if third, err := Listen(t.Context(), "--some-address", address); err == nil {
			t.Errorf("who does not share got %v", third.Addr())
		}
		if err := errors.Join(first.Close(), second.Close()); err != nil {
			t.Error(err)
		}
		if listener, err := ListenShared(t.Context(), "--some-address", "0"); listener != nil || err != nil {
			t.Errorf("0: got %v, %v", listener, err)
		}
	})
	t.Run("an address that is taken is an error that names the flag", func(t *testing.T) {
		first, err := Listen(t.Context(), "--some-address", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = first.Close() }()
		if _, err := Listen(t.Context(), "--some-address", first.Addr().String()); err == nil || !strings.HasPrefix(err.Error(), "--some-address: ") {
			t.Errorf("got %v", err)
		}
	})
}

func TestServeAnswersUntilItIsStopped(t *testing.T) {
	listener, err := Listen(t.Context(), "--some-address", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- Serve(ctx, listener, Probe(Check{Name: "ping", Probe: func(*http.Request) error { return nil }}))
	}()
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	if got := mustGet(t, client, "http://"+listener.Addr().String()); got != "[+] ping: ok\n" {
		t.Errorf("got %q", got)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Serve: %v", err)
	}
	if conn, err := net.Dial("tcp", listener.Addr().String()); err == nil {
		_ = conn.Close()
		t.Error("the port still accepts connections")
	}
}

func mustGet(t *testing.T, client *http.Client, url string) string {
	t.Helper()
	response, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func TestServeWithoutAListener(t *testing.T) {
	if err := Serve(t.Context(), nil, http.NotFoundHandler()); err != nil {
		t.Error(err)
	}
}

// pipes is a listener in memory, so that servers can be tested in synctest.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.conns:
		return conn, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	close(p.closed)
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes"} }

func (p *pipes) client() *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		here, there := net.Pipe()
		p.conns <- there
		return here, nil
	}}}
}

func TestServeLetsRequestsEnd(t *testing.T) {
	cases := map[string]struct {
		inTakes  time.Duration
		wantStop time.Duration
		wantBody string
		wantErr  bool
	}{
		"one that ends within two seconds is answered": {inTakes: time.Second, wantStop: time.Second, wantBody: "answer"},
		"one that does not is cut off":                 {inTakes: time.Minute, wantStop: 2 * time.Second, wantErr: true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				listener := newPipes()
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() {
					ended <- Serve(ctx, listener, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
						time.Sleep(tc.inTakes)
						_, _ = io.WriteString(w, "answer")
					}))
				}()
				answered := make(chan struct{})
				client := listener.client()
				go func() {
					defer close(answered)
					response, err := client.Get("http://pipes/")
					if (err != nil) != tc.wantErr {
						t.Errorf("request: %v", err)
					}
					if err == nil {
						body, _ := io.ReadAll(response.Body)
						_ = response.Body.Close()
						if string(body) != tc.wantBody {
							t.Errorf("body %q", body)
						}
					}
				}()
				synctest.Wait()
				began := time.Now()
				cancel()
				if err := <-ended; err != nil {
					t.Errorf("Serve: %v", err)
				}
				// The server polls until all requests are done.
				if took := time.Since(began); took < tc.wantStop || took > tc.wantStop+500*time.Millisecond {
					t.Errorf("stopped after %v, want %v", took, tc.wantStop)
				}
				<-answered
				time.Sleep(tc.inTakes) // until the handler has returned
				client.CloseIdleConnections()
			})
		})
	}
}

func TestServeReturnsTheErrorOfItsListener(t *testing.T) {
	if err := Serve(t.Context(), brokenListener{newPipes()}, http.NotFoundHandler()); !errors.Is(err, errBoom) || !strings.HasPrefix(err.Error(), "serve on pipes: ") {
		t.Errorf("got %v", err)
	}
}

type brokenListener struct{ *pipes }

func (brokenListener) Accept() (net.Conn, error) { return nil, errBoom }
