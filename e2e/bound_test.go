package e2e

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// isAccepted uses a connection of its own.
func isAccepted(ctx context.Context, p controlPlane, compact string) bool {
	client, err := clientWith(p, compact)
	return err == nil && ask(ctx, client) == nil
}

func expectAccepted(t *testing.T, p controlPlane, compact string) {
	t.Helper()
	if !isAccepted(t.Context(), p, compact) {
		t.Error("a token of a key that verifies is refused")
	}
}

func clientWith(p controlPlane, compact string) (kubernetes.Interface, error) {
	config := rest.AnonymousClientConfig(p.Admin)
	config.BearerToken, config.Dial = compact, new(net.Dialer).DialContext
	return kubernetes.NewForConfig(config)
}

// bound are clients with a bound token each, which they renew after renewAfter. They take the
// place of kubelet, which renews at 80 % of a lifetime that is too long for a test.
type bound struct {
	controlPlane controlPlane
	namespace    string
	outages      bool

	mu     sync.Mutex
	tokens map[int]string
	errors []error

	uses, kept, renewals, refused, failed atomic.Int64

	cancel context.CancelFunc
	group  *errgroup.Group
}

const renewAfter = 2 * time.Second

// startBound starts n clients. With outages a TokenRequest may fail; then they keep their
// token.
func startBound(t *testing.T, p controlPlane, namespace string, n int, outages bool) *bound {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	group, ctx := errgroup.WithContext(ctx)
	b := &bound{controlPlane: p, namespace: namespace, outages: outages, tokens: map[int]string{}, cancel: cancel, group: group}
	for i := range n {
		group.Go(func() error { return b.live(ctx, i) })
	}
	t.Cleanup(b.stop)
	eventuallyIn(t, 2*patience, "every client has a token", func(context.Context) error {
		b.mu.Lock()
		defer b.mu.Unlock()
		if len(b.tokens) < n {
			return fmt.Errorf("%d of %d", len(b.tokens), n)
		}
		return nil
	})
	return b
}

func (b *bound) stop() {
	b.cancel()
	_ = b.group.Wait() // failures are counted
}

func (b *bound) live(ctx context.Context, i int) error {
	for ctx.Err() == nil {
		client, compact, err := b.renew(ctx)
		switch {
		case ctx.Err() != nil: // it was stopped
		case err != nil:
			b.failed.Add(1)
		default:
			b.renewals.Add(1)
			b.mu.Lock()
			b.tokens[i] = compact
			b.mu.Unlock()
		}
		for until := time.Now().Add(renewAfter); client != nil && time.Now().Before(until) && ctx.Err() == nil; sleep(ctx, 200*time.Millisecond) {
			b.count(ctx, ask(ctx, client))
		}
		if client == nil {
			sleep(ctx, 100*time.Millisecond)
		}
	}
	return nil
}

// count records the result of a request. The API server is always up, so the only possible
// failure is a refusal.
func (b *bound) count(ctx context.Context, err error) {
	switch {
	case ctx.Err() != nil:
	case err == nil:
		b.uses.Add(1)
	default:
		b.refused.Add(1)
		b.mu.Lock()
		b.errors = append(b.errors, err)
		b.mu.Unlock()
	}
}

// keep stops the renewal of tokens until the returned function is called. Each token is used
// less often than the API server's token cache expires, so that it is verified every time.
func (b *bound) keep(t *testing.T) (stop func()) {
	t.Helper()
	b.mu.Lock()
	tokens := slices.Collect(maps.Values(b.tokens))
	b.mu.Unlock()
	ctx, cancel := context.WithCancel(t.Context())
	var keepers sync.WaitGroup
	for i, compact := range tokens {
		client, err := clientWith(b.controlPlane, compact)
		must(t, err)
		keepers.Go(func() {
			const every = 11 * time.Second
			for sleep(ctx, every*time.Duration(i)/time.Duration(len(tokens))); ctx.Err() == nil; sleep(ctx, every) {
				err := ask(ctx, client)
				b.count(ctx, err)
				if err == nil {
					b.kept.Add(1)
				}
			}
		})
	}
	return func() {
		cancel()
		keepers.Wait()
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func (b *bound) renew(ctx context.Context) (kubernetes.Interface, string, error) {
	seconds := int64(600)
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds}}
	granted, err := b.controlPlane.client.CoreV1().ServiceAccounts(b.namespace).CreateToken(ctx, "robot", request, metav1.CreateOptions{})
	if err != nil {
		return nil, "", err
	}
	client, err := clientWith(b.controlPlane, granted.Status.Token)
	return client, granted.Status.Token, err
}

// sample returns the token of a client, which must be signed by this key.
func (b *bound) sample(t *testing.T, key []keys.PublicKey) string {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, compact := range b.tokens {
		if token.UnverifiedKeyID(compact) == key[0].ID() {
			return compact
		}
	}
	t.Fatal("no token is of the key that signs")
	return ""
}

// expectAll waits until every client has a token of this key.
func (b *bound) expectAll(t *testing.T, key []keys.PublicKey) {
	t.Helper()
	eventuallyIn(t, 2*patience, "every client has a token of the new key", func(context.Context) error {
		b.mu.Lock()
		defer b.mu.Unlock()
		for i, compact := range b.tokens {
			if id := token.UnverifiedKeyID(compact); id != key[0].ID() {
				return fmt.Errorf("client %d has one of key %s", i, id)
			}
		}
		return nil
	})
}

// expectProgress waits until tokens were renewed and used as often as in two rounds of all
// clients.
func (b *bound) expectProgress(t *testing.T, phase string) {
	t.Helper()
	b.mu.Lock()
	n := int64(len(b.tokens))
	b.mu.Unlock()
	renewals, uses := b.renewals.Load(), b.uses.Load()
	eventuallyIn(t, 2*patience, phase+": the clients go on", func(context.Context) error {
		if more := b.renewals.Load() - renewals; more < 2*n {
			return fmt.Errorf("%d renewals since", more)
		}
		if more := b.uses.Load() - uses; more < 4*n {
			return fmt.Errorf("%d requests since", more)
		}
		return nil
	})
}
