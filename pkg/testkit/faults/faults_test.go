package faults

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// server is a fake API server: it echoes the body of a request, and sends events to watches.
type server struct {
	events chan string
	got    chan string // "<method> <path>" of each request
	ended  chan string // the same of each watch that ended
}

func (s server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.got <- r.Method + " " + r.URL.Path
	body, _ := io.ReadAll(r.Body)
	w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
	w.Header().Set("X-Authorization", r.Header.Get("Authorization"))
	w.Header().Set("X-User-Agent", r.UserAgent())
	if r.URL.Query().Get("watch") == "" {
		_, _ = w.Write(body)
		return
	}
	for {
		select {
		case event := <-s.events:
			_, _ = io.WriteString(w, event)
			_ = http.NewResponseController(w).Flush()
		case <-r.Context().Done():
			s.ended <- r.Method + " " + r.URL.Path
			return
		}
	}
}

type fixture struct {
	*Proxy
	server server
	client *http.Client
	url    string
}

func start(t *testing.T) fixture {
	t.Helper()
	s := server{events: make(chan string), got: make(chan string, 1000), ended: make(chan string, 1000)}
	upstream := httptest.NewServer(s)
	t.Cleanup(upstream.Close)
	p, err := Start(&rest.Config{Host: upstream.URL, BearerToken: "pass"})
	must(t, err)
	t.Cleanup(p.Close)
	path := filepath.Join(t.TempDir(), "kubeconfig")
	must(t, p.Kubeconfig(path))
	config, err := clientcmd.BuildConfigFromFlags("", path)
	must(t, err)
	client, err := rest.HTTPClientFor(config)
	must(t, err)
	return fixture{Proxy: p, server: s, client: client, url: config.Host}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (f fixture) do(ctx context.Context, method, path string, body []byte) (*http.Response, []byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, f.url+path, bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	request.Header.Set("Content-Type", "application/vnd.kubernetes.protobuf")
	request.Header.Set("User-Agent", "tester")
	response, err := f.client.Do(request)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = response.Body.Close() }()
	data, err := io.ReadAll(response.Body)
	return response, data, err
}

const secret = "/api/v1/namespaces/team/secrets/token"

func TestRequestsWithoutAFaultPassUnchanged(t *testing.T) {
	f := start(t)
	want := []byte("k8s\x00\x0a\xff\x00binary")
	response, got, err := f.do(t.Context(), http.MethodPut, secret, want)
	must(t, err)
	if response.ProtoMajor != 2 {
		t.Errorf("HTTP/%d, want 2", response.ProtoMajor)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("body (-want +got):\n%s", diff)
	}
	for header, want := range map[string]string{
		"Content-Type": "application/vnd.kubernetes.protobuf", "X-Authorization": "Bearer pass", "X-User-Agent": "tester",
	} {
		if got := response.Header.Get(header); got != want {
			t.Errorf("%s = %q, want %q", header, got, want)
		}
	}
}

func TestFaults(t *testing.T) {
	tests := map[string]struct {
		inFault        Fault
		wantCode       int
		wantRetryAfter string
		wantReset      bool
		wantReached    bool // the request has reached the API server
	}{
		"conflict":                 {inFault: Conflict(), wantCode: http.StatusConflict},
		"internal error":           {inFault: InternalError(), wantCode: http.StatusInternalServerError},
		"expired":                  {inFault: Expired(), wantCode: http.StatusGone},
		"too many requests":        {inFault: TooManyRequests(1500 * time.Millisecond), wantCode: http.StatusTooManyRequests, wantRetryAfter: "2"},
		"pass":                     {inFault: Pass(), wantCode: http.StatusOK, wantReached: true},
		"reset before the request": {inFault: Reset(), wantReset: true},
		"reset after the request":  {inFault: ResetAfter(), wantReset: true, wantReached: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f := start(t)
			injection := f.Inject(tt.inFault, Request.Writes)
			response, _, err := f.do(t.Context(), http.MethodPut, secret, nil)
			switch {
			case tt.wantReset:
				if !isReset(err) {
					t.Errorf("error = %v, want a reset", err)
				}
			case err != nil:
				t.Error(err)
			case response.StatusCode != tt.wantCode || response.Header.Get("Retry-After") != tt.wantRetryAfter:
				t.Errorf("code %d, Retry-After %q; want %d, %q", response.StatusCode, response.Header.Get("Retry-After"), tt.wantCode, tt.wantRetryAfter)
			}
			if got := len(f.server.got) == 1; got != tt.wantReached {
				t.Errorf("reached the server: %t, want %t", got, tt.wantReached)
			}

			if response, _, err := f.do(t.Context(), http.MethodGet, secret, nil); err != nil || response.StatusCode != http.StatusOK {
				t.Errorf("a read, which does not match: %v", err)
			}
			injection.Lift()
			injection.Lift()
			if response, _, err := f.do(t.Context(), http.MethodPut, secret, nil); err != nil || response.StatusCode != http.StatusOK {
				t.Errorf("after the fault: %v", err)
			}
			if got := injection.Hits(); got != 1 {
				t.Errorf("%d hits, want 1", got)
			}
		})
	}
}

// isReset returns true for the errors that a client gets after an RST. The kernel reports
// ECONNRESET only once: after a write has got it, the next read returns EOF.
func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, io.ErrUnexpectedEOF)
}

func TestAResetIsSentAsRST(t *testing.T) {
	f := start(t)
	f.Inject(Reset(), nil)
	address, err := url.Parse(f.url)
	must(t, err)
	conn, err := tls.Dial("tcp", address.Host, &tls.Config{InsecureSkipVerify: true})
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	_, err = io.WriteString(conn, "GET "+secret+" HTTP/1.1\r\nHost: test\r\n\r\n")
	must(t, err)
	if _, err := io.ReadAll(conn); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("error = %v, want a reset", err)
	}
}

func TestTheNewestFaultApplies(t *testing.T) {
	f := start(t)
	old := f.Inject(InternalError(), nil)
	exception := f.Inject(Pass(), func(r Request) bool { return r.Resource == "leases" })
	for path, want := range map[string]int{
		"/apis/coordination.k8s.io/v1/namespaces/team/leases/lock": http.StatusOK, secret: http.StatusInternalServerError,
	} {
		if response, _, err := f.do(t.Context(), http.MethodGet, path, nil); err != nil || response.StatusCode != want {
			t.Errorf("%s: %v, %v, want %d", path, response, err, want)
		}
	}
	if old.Hits() != 1 || exception.Hits() != 1 {
		t.Errorf("hits: %d and %d, want 1 each", old.Hits(), exception.Hits())
	}
}

// watch starts a watch, reads its first event, and returns its body.
func (f fixture) watch(t *testing.T) io.ReadCloser {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, f.url+"/api/v1/secrets?watch=true&resourceVersion=7", nil)
	must(t, err)
	var body io.ReadCloser
	answered := make(chan error, 1)
	go func() {
		response, err := f.client.Do(request)
		if err == nil {
			body = response.Body
		}
		answered <- err
	}()
	f.server.events <- "first"
	must(t, <-answered)
	if got := mustRead(t, body, 5); got != "first" {
		t.Errorf("event %q, want first", got)
	}
	t.Cleanup(func() { _ = body.Close() })
	return body
}

func mustRead(t *testing.T, from io.Reader, n int) string {
	t.Helper()
	buffer := make([]byte, n)
	_, err := io.ReadFull(from, buffer)
	must(t, err)
	return string(buffer)
}

func TestWatchesAreStreamedAndCut(t *testing.T) {
	f := start(t)
	body := f.watch(t)
	if got := f.CutWatches(); got != 1 {
		t.Errorf("%d watches were cut, want 1", got)
	}
	if rest, err := io.ReadAll(body); err != nil || len(rest) != 0 {
		t.Errorf("the watch ended with %q and %v, want a clean end", rest, err)
	}
	<-f.server.ended // so that it takes no event of the next watch
	if got := f.watch(t); got == nil {
		t.Error("no watch after that")
	}
}

func TestSilenceDelaysRequestsAndWatches(t *testing.T) {
	f := start(t)
	body := f.watch(t)
	silence := f.Inject(Silence(), nil)

	awaitHits := func(n int) {
		t.Helper()
		must(t, wait.PollUntilContextTimeout(t.Context(), time.Millisecond, 2*time.Minute, true, func(context.Context) (bool, error) {
			return silence.Hits() == n, nil
		}))
	}
	short, cancel := context.WithCancel(t.Context())
	given := make(chan error, 1)
	go func() {
		_, _, err := f.do(short, http.MethodGet, secret, nil)
		given <- err
	}()
	awaitHits(1)
	cancel()
	if err := <-given; !errors.Is(err, context.Canceled) {
		t.Errorf("a request that its client gives up: %v", err)
	}
	read := make(chan string, 1)
	go func() {
		buffer := make([]byte, 6)
		_, _ = io.ReadFull(body, buffer)
		read <- string(buffer)
	}()
	f.server.events <- "second"
	late := make(chan error, 1)
	go func() {
		_, _, err := f.do(t.Context(), http.MethodGet, secret, nil)
		late <- err
	}()
	awaitHits(2)
	// Requests that are not delayed pass on the same connection.
	f.Inject(Pass(), func(r Request) bool { return r.Resource == "configmaps" })
	for range 10 {
		_, _, err := f.do(t.Context(), http.MethodGet, "/api/v1/configmaps", nil)
		must(t, err)
	}
	select {
	case got := <-read:
		t.Errorf("the watch got %q", got)
	case err := <-late:
		t.Errorf("a request was answered: %v", err)
	default:
	}
	silence.Lift()
	if got := <-read; got != "second" {
		t.Errorf("the watch got %q, want second", got)
	}
	must(t, <-late)
}

func TestAnUnreachableServerIsAResetForClients(t *testing.T) {
	upstream := httptest.NewServer(nil)
	upstream.Close()
	p, err := Start(&rest.Config{Host: upstream.URL})
	must(t, err)
	t.Cleanup(p.Close)
	client, err := rest.HTTPClientFor(p.Config())
	must(t, err)
	_, _, err = fixture{Proxy: p, client: client, url: p.Config().Host}.do(t.Context(), http.MethodGet, secret, nil)
	if !isReset(err) {
		t.Errorf("error = %v, want a reset", err)
	}
}

func TestFaultsChangeDuringRequests(t *testing.T) {
	f := start(t)
	const clients, each = 8, 20
	group, ctx := errgroup.WithContext(t.Context())
	for range clients {
		group.Go(func() error {
			for range each {
				response, _, err := f.do(ctx, http.MethodGet, secret, nil)
				if err != nil {
					return err
				}
				if code := response.StatusCode; code != http.StatusOK && code != http.StatusInternalServerError {
					return fmt.Errorf("code %d", code)
				}
			}
			return nil
		})
	}
	group.Go(func() error {
		for range clients * each {
			f.Inject(InternalError(), func(r Request) bool { return r.Name == "token" }).Lift()
		}
		return nil
	})
	must(t, group.Wait())
	if diff := cmp.Diff(map[string]int{"get secrets": clients * each}, Count(f.Requests())); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}
