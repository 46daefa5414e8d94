package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/pkg/issuer"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
	"github.com/sakeeper/sakeeper/pkg/testkit/faults"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// cable carries bytes between clients and an API server. It can be cut, which resets connections
// and refuses others, and frozen, which keeps connections and carries nothing.
type cable struct {
	listener net.Listener
	upstream string

	mu     sync.Mutex
	conns  map[net.Conn]bool
	isCut  bool
	thawed chan struct{} // closed unless it is frozen
}

func newCable(t *testing.T, upstream string) *cable {
	t.Helper()
	target, err := url.Parse(upstream)
	must(t, err)
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	must(t, err)
	c := &cable{listener: listener, upstream: target.Host, conns: map[net.Conn]bool{}, thawed: make(chan struct{})}
	close(c.thawed)
	t.Cleanup(func() {
		c.freeze(false)
		c.cut(true)
		must(t, listener.Close())
	})
	go c.accept()
	return c
}

func (c *cable) accept() {
	for {
		down, err := c.listener.Accept()
		if err != nil {
			return
		}
		up, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", c.upstream)
		c.mu.Lock()
		if err != nil || c.isCut {
			_ = down.Close()
			if err == nil {
				_ = up.Close()
			}
			c.mu.Unlock()
			continue
		}
		c.conns[down], c.conns[up] = true, true
		c.mu.Unlock()
		go c.carry(down, up)
		go c.carry(up, down)
	}
}

func (c *cable) carry(from, to net.Conn) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		c.mu.Lock()
		thawed := c.thawed
		c.mu.Unlock()
		<-thawed
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				break
			}
		}
		if err != nil {
			break
		}
	}
	_ = from.Close()
	_ = to.Close()
}

func (c *cable) cut(cut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.isCut = cut
	for conn := range c.conns {
		if cut {
			_ = conn.Close()
			delete(c.conns, conn)
		}
	}
}

func (c *cable) freeze(freeze bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.thawed:
		if freeze {
			c.thawed = make(chan struct{})
		}
	default:
		if !freeze {
			close(c.thawed)
		}
	}
}

// cutOff is an authenticator on whose way to the API server there is a fault.
type cutOff struct {
	reviewer

	sakeeper *controlplane.Sakeeper
	proxy    *faults.Proxy
	cable    *cable
}

// startCutOff starts one that goes through a cable, and before that through a proxy.
func startCutOff(t *testing.T) cutOff {
	t.Helper()
	must(t, shared.cp.InstallAuthenticator(t.Context()))
	identity, err := shared.cp.ServiceAccount(controlplane.Namespace, controlplane.AuthenticatorAccount)
	must(t, err)
	proxy, err := faults.Start(identity)
	must(t, err)
	t.Cleanup(proxy.Close)
	config := proxy.Config()
	c := newCable(t, config.Host)
	kubeconfig := filepath.Join(t.TempDir(), "cable.kubeconfig")
	must(t, proxy.Kubeconfig(kubeconfig))
	content, err := os.ReadFile(kubeconfig)
	must(t, err)
	content = bytes.ReplaceAll(content, []byte(config.Host), []byte("https://"+c.listener.Addr().String()))
	must(t, os.WriteFile(kubeconfig, content, 0o600))
	r, s := startAuthenticatorWith(t, kubeconfig, planeIssuer+issuer.JWKSPath)
	return cutOff{r, s, proxy, c}
}

// tokens returns a bound token of a new account and a legacy one of another.
func (c cutOff) tokens(t *testing.T, namespace string) map[string]string {
	t.Helper()
	mustCreateAccount(t, shared.client, namespace, "bound")
	mustCreateAccount(t, shared.client, namespace, "legacy")
	_, err := shared.client.CoreV1().Secrets(namespace).Create(t.Context(), tokenSecret("legacy-token", "legacy"), metav1.CreateOptions{})
	must(t, err)
	granted, err := shared.client.CoreV1().ServiceAccounts(namespace).CreateToken(t.Context(), "bound", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	must(t, err)
	return map[string]string{"bound": granted.Status.Token, "legacy": mustFillToken(t, controlPlane{shared.cp, shared.client}, namespace, "legacy-token")}
}

// askAll returns which tokens are accepted. No answer within that time is none.
func (c cutOff) askAll(ctx context.Context, within time.Duration, tokens map[string]string) (accepted []string) {
	for name, compact := range tokens {
		ctx, cancel := context.WithTimeout(ctx, within)
		status, err := c.ask(ctx, compact)
		cancel()
		if err == nil && status.Authenticated {
			accepted = append(accepted, name)
		}
	}
	return accepted
}

func (c cutOff) ready(ctx context.Context) (int, string, error) {
	return c.sakeeper.Get(ctx, "/readyz")
}

// TestLongCutOffCaches: tokens of deleted accounts are not accepted for more than 10 s, whatever
// became of the connection, and /readyz names the caches that are not alive.
func TestLongCutOffCaches(t *testing.T) {
	c := startCutOff(t)
	for name, tc := range map[string]struct {
		begin    func() (end func())
		wantText string
	}{
		"killed connections": {func() func() { c.cable.cut(true); return func() { c.cable.cut(false) } }, ""},
		"frozen connections": {func() func() { c.cable.freeze(true); return func() { c.cable.freeze(false) } }, ""},
		"frozen watches, and other requests are answered": {func() func() {
			return c.proxy.Inject(faults.Silence(), func(r faults.Request) bool { return r.Verb == "watch" }).Lift
		}, ""},
		"frozen watches, and even others are answered": {func() func() {
			return c.proxy.Inject(faults.Silence(), func(r faults.Request) bool { return r.Verb == "watch" && r.TimeoutSeconds > 60 }).Lift
		}, "its watch does not deliver the changes that the API server has"},
	} {
		t.Run(name, func(t *testing.T) {
			namespace := newNamespace(t, shared.client)
			tokens := c.tokens(t, namespace)
			eventually(t, "both are accepted", func(ctx context.Context) error {
				if got := c.askAll(ctx, time.Second, tokens); len(got) != len(tokens) {
					return fmt.Errorf("accepted: %v", got)
				}
				return nil
			})
			end := tc.begin()
			defer end()
			for _, account := range []string{"bound", "legacy"} {
				must(t, shared.client.CoreV1().ServiceAccounts(namespace).Delete(t.Context(), account, metav1.DeleteOptions{}))
			}
			deleted, last := time.Now(), time.Duration(0)
			for time.Since(deleted) < 25*time.Second {
				asked := time.Since(deleted)
				if accepted := c.askAll(t.Context(), time.Second, tokens); len(accepted) > 0 {
					last = asked
				}
				time.Sleep(100 * time.Millisecond) // bounds the load
			}
			t.Logf("tokens of deleted accounts were accepted for %v", last)
			if last > 11*time.Second {
				t.Errorf("tokens of deleted accounts were accepted for %v", last)
			}
			code, body, err := c.ready(t.Context())
			must(t, err)
			if code == 200 || !strings.Contains(body, "the cache of ServiceAccounts is not alive") || !strings.Contains(body, tc.wantText) {
				t.Errorf("/readyz: %d %s", code, body)
			}
			t.Log(body)
			end()
			eventuallyIn(t, 2*time.Minute, "it is ready again", func(ctx context.Context) error {
				code, body, err := c.ready(ctx)
				if err == nil && code != 200 {
					err = errors.New(body)
				}
				return err
			})
		})
	}
}

// awaitQuiet waits until no request was made for two seconds: a probe lasts one.
func (c cutOff) awaitQuiet(t *testing.T) {
	t.Helper()
	eventually(t, "no more requests", func(ctx context.Context) error {
		before := len(c.proxy.Requests())
		sleep(ctx, 2*time.Second)
		if got := c.proxy.Requests()[before:]; len(got) > 0 {
			return fmt.Errorf("there were %v", faults.Count(got))
		}
		return nil
	})
}

// TestLongAQuietClusterCostsNoReads: a review that is answered from a cache that is alive makes no
// request, in a cluster without events the caches are kept alive by a few probes, and a process
// that is not asked makes no request at all.
func TestLongAQuietClusterCostsNoReads(t *testing.T) {
	c := startCutOff(t)
	namespace := newNamespace(t, shared.client)
	tokens := c.tokens(t, namespace)
	eventually(t, "both are accepted", func(ctx context.Context) error {
		if got := c.askAll(ctx, time.Second, tokens); len(got) != len(tokens) {
			return fmt.Errorf("accepted: %v", got)
		}
		return nil
	})
	eventually(t, "the use of the legacy token is recorded", func(ctx context.Context) error {
		secret, err := shared.client.CoreV1().Secrets(namespace).Get(ctx, "legacy-token", metav1.GetOptions{})
		if err == nil && secret.Labels[token.LastUsedLabel] == "" {
			err = errors.New("not yet")
		}
		return err
	})
	c.awaitQuiet(t)
	before := len(c.proxy.Requests())
	time.Sleep(20 * time.Second) // the idle time is what is measured
	if got := c.proxy.Requests()[before:]; len(got) > 0 {
		t.Errorf("an idle process made %v", faults.Count(got))
	}
	c.askAll(t.Context(), patience, tokens) // read live, and probed for
	c.awaitQuiet(t)
	before = len(c.proxy.Requests())
	const reviews = 300
	began := time.Now()
	for range reviews {
		if got := c.askAll(t.Context(), patience, tokens); len(got) != len(tokens) {
			t.Fatalf("accepted: %v", got)
		}
		time.Sleep(100 * time.Millisecond) // 300 of them are 30 s
	}
	lasted := time.Since(began)
	got := c.proxy.Requests()[before:]
	t.Logf("%d reviews in %v: %v", 2*reviews, lasted, faults.Count(got))
	for _, r := range got {
		if r.Verb == "get" {
			t.Errorf("read live: %v", r)
		}
	}
	// A probe of two requests in 5 s for each of two caches, and slack.
	if most := 4*int(lasted/(5*time.Second)) + 16; len(got) > most {
		t.Errorf("%d requests, want at most %d", len(got), most)
	}
	if code, body, err := c.ready(t.Context()); err != nil || code != 200 {
		t.Errorf("/readyz: %d %s, %v", code, body, err)
	}
}
