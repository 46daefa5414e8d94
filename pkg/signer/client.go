package signer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	externaljwt "k8s.io/externaljwt/apis/v1"
	"k8s.io/klog/v2"

	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/token"
)

const (
	// requestTimeout bounds every request: a signer that hangs must not block a worker.
	requestTimeout = 10 * time.Second
	// retryFetch is the delay after which keys that could not be fetched are fetched again.
	retryFetch = 10 * time.Second
	// maxKeys bounds the keys of a response.
	maxKeys = 1000
)

// connectBackoff is short, because the socket is on this machine.
func connectBackoff() backoff.Config {
	return backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 5 * time.Second}
}

// Client signs legacy tokens through the legacy socket of a signer, and follows the keys of the
// signer. Its methods may be called concurrently; Run may be called once.
type Client struct {
	endpoint string
	conn     *grpc.ClientConn
	signer   externaljwt.ExternalJWTSignerClient
	current  atomic.Pointer[keys.Set]

	mu        sync.Mutex
	hint      time.Duration
	onChange  []func()
	onError   []func(error)
	lastError string
}

// Dial connects to the socket at endpoint, a path, and fetches the keys. The caller must call
// Close.
func Dial(ctx context.Context, endpoint string) (*Client, error) {
	conn, err := grpc.NewClient("unix:"+endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()), // the socket's mode says who may
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(4<<20)), grpc.WithIdleTimeout(0),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: connectBackoff(), MinConnectTimeout: time.Second}))
	if err != nil {
		return nil, fmt.Errorf("signer at %s: %w", endpoint, err)
	}
	c := &Client{endpoint: endpoint, conn: conn, signer: externaljwt.NewExternalJWTSignerClient(conn)}
	set, hint, err := c.fetch(ctx)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	c.current.Store(set)
	c.hint = hint
	return c, nil
}

// Close closes the connection.
func (c *Client) Close() error { return c.conn.Close() }

// Get returns the keys that were fetched last. The signing key has no private half here.
func (c *Client) Get() *keys.Set { return c.current.Load() }

// OnChange makes f run after every change of the keys. F must not block, and may only call Get.
func (c *Client) OnChange(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.onChange = append(c.onChange, f)
}

// OnError makes f run when the keys cannot be fetched, once per error text. F must not block, and
// may only call Get.
func (c *Client) OnError(f func(error)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.onError = append(c.onError, f)
}

// SignLegacy returns the legacy token for claims, signed by the signer. It returns an error if
// the response is not a token with these claims and of a key from FetchKeys: such a token must
// not be written to a Secret.
func (c *Client) SignLegacy(ctx context.Context, claims token.LegacyClaims) (string, error) {
	payload, err := token.LegacyPayload(claims)
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	known := c.Get() // before the request, so that a rotation during it is noticed
	response, err := c.signer.Sign(ctx, &externaljwt.SignJWTRequest{Claims: payload})
	if err != nil {
		return "", c.requestError("sign token", err)
	}
	compact := response.GetHeader() + "." + payload + "." + response.GetSignature()
	signedWith := token.UnverifiedKeyID(compact)
	if signedWith != known.Signing().String() {
		c.refresh(ctx) // the signer rotates its key, which must be checked before the next write
		if c.Get().Equal(known) {
			return "", fmt.Errorf("sign token: signer at %s: signs with key %q, and names %s as the one that signs", c.endpoint, signedWith, known.Signing())
		}
	}
	if _, err := token.NewVerifier(c.Get).VerifyLegacy(compact); err != nil {
		return "", fmt.Errorf("sign token: signer at %s: answered with no such token: %w", c.endpoint, err)
	}
	return compact, nil
}

// Run fetches the keys again and again until ctx ends, and returns nil. Errors are logged and
// retried.
func (c *Client) Run(ctx context.Context) error {
	for {
		c.mu.Lock()
		wait := c.hint
		if c.lastError != "" {
			wait = min(wait, retryFetch)
		}
		c.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
			c.refresh(ctx)
		}
	}
}

func (c *Client) refresh(ctx context.Context) {
	logger := klog.FromContext(ctx)
	set, hint, err := c.fetch(ctx)
	if ctx.Err() != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		if err.Error() != c.lastError {
			logger.Error(err, "Kept the last keys, the signer's cannot be fetched", "endpoint", c.endpoint)
			for _, f := range c.onError {
				f(err)
			}
		}
		c.lastError = err.Error()
		return
	}
	c.hint, c.lastError = hint, ""
	if before := c.Get(); !set.Equal(before) {
		logger.Info("The signer's keys changed", "endpoint", c.endpoint, "old", before.Signing().String(), "new", set.Signing().String(), "keys", len(set.Verification()))
		c.current.Store(set)
		for _, f := range c.onChange {
			f()
		}
	}
}

// fetch fetches the keys and the refresh hint.
func (c *Client) fetch(ctx context.Context) (*keys.Set, time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	response, err := c.signer.FetchKeys(ctx, &externaljwt.FetchKeysRequest{})
	if err != nil {
		return nil, 0, c.requestError("fetch keys", err)
	}
	set, err := parseKeys(response.GetKeys())
	if err == nil && response.GetRefreshHintSeconds() <= 0 {
		err = fmt.Errorf("its refresh hint is %d s", response.GetRefreshHintSeconds())
	}
	if err != nil {
		return nil, 0, fmt.Errorf("fetch keys: signer at %s: %w", c.endpoint, err)
	}
	return set, time.Duration(min(response.GetRefreshHintSeconds(), 3600)) * time.Second, nil
}

// parseKeys returns the keys of a response. The first one signs.
func parseKeys(found []*externaljwt.Key) (*keys.Set, error) {
	if len(found) == 0 || len(found) > maxKeys {
		return nil, fmt.Errorf("has %d keys, 1 to %d are needed", len(found), maxKeys)
	}
	var published, legacy []keys.PublicKey
	for i, key := range found {
		public, err := keys.ParseDER(key.GetKey())
		switch {
		case err != nil:
			return nil, fmt.Errorf("its key %d: %w", i+1, err)
		case public.ID() != key.GetKeyId():
			return nil, fmt.Errorf("its key %d has the id %q, and should have %s", i+1, key.GetKeyId(), public.ID())
		case key.GetExcludeFromOidcDiscovery() && i == 0:
			return nil, errors.New("its first key, which signs, is excluded from discovery")
		case key.GetExcludeFromOidcDiscovery():
			legacy = append(legacy, public)
		default:
			published = append(published, public)
		}
	}
	return keys.NewSet(keys.PublicOnly(published[0]), published[1:]...).WithLegacy(legacy...), nil
}

// requestError returns err without gRPC details, and without its message if that contains a
// token.
func (c *Client) requestError(doing string, err error) error {
	s := status.Convert(err)
	if token.ContainsToken(s.Message()) {
		return fmt.Errorf("%s: signer at %s: %s (the message is redacted, because it contains a token)", doing, c.endpoint, s.Code())
	}
	return fmt.Errorf("%s: signer at %s: %s: %s", doing, c.endpoint, s.Code(), s.Message())
}
