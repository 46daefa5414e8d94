package issuer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/keys"
)

const (
	// minInterval is the shortest time between two fetches, because any client can send tokens
	// with made-up key ids.
	minInterval = 10 * time.Second
	// fetchInterval is the time between fetches that no token caused, so that removed keys are
	// dropped.
	fetchInterval = 10 * time.Minute
	// fetchTimeout bounds one fetch: token reviews wait for it.
	fetchTimeout = 5 * time.Second
	// maxDocument bounds what is read of a response.
	maxDocument = 1 << 20
)

// RemoteKeys holds the keys that an issuer publishes. Its methods may be called concurrently.
type RemoteKeys struct {
	issuer  string
	client  *http.Client
	clock   clock.PassiveClock
	current atomic.Pointer[keys.Set]

	mu        sync.Mutex
	lastFetch time.Time
	lastErr   error
	// unusable says which keys of the last JWKS were left out; nil if none was.
	unusable error
}

// NewRemoteKeys makes no request: there are no keys until Run or Refresh has fetched them. It
// returns an error if issuer is not an https URL without query and fragment. A copy of client
// is used, which follows no redirects.
func NewRemoteKeys(issuer string, client *http.Client, clock clock.PassiveClock) (*RemoteKeys, error) {
	if found, err := url.Parse(issuer); err != nil || found.Scheme != https || found.Host == "" || found.RawQuery != "" || found.Fragment != "" {
		return nil, fmt.Errorf("issuer %q: is not an https URL without query and fragment, which discovery needs; give it keyFiles instead", issuer)
	}
	own := *client
	own.Timeout = fetchTimeout
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return errors.New("it redirects") }
	r := &RemoteKeys{issuer: issuer, client: &own, clock: clock}
	r.current.Store(keys.NewVerificationSet())
	return r, nil
}

// Get returns the keys of the last successful fetch; before that, an empty set.
func (r *RemoteKeys) Get() *keys.Set { return r.current.Load() }

// Refresh fetches the keys, unless that was done within the last 10 s, and returns true if they
// are not those that Get returned before. Call it for a token whose key id is unknown. The error
// says why the last fetch failed; the keys before it stay in use.
func (r *RemoteKeys) Refresh(ctx context.Context) (changed bool, err error) {
	before := r.Get()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lastFetch.IsZero() || r.clock.Since(r.lastFetch) >= minInterval {
		r.fetch(ctx)
	}
	return !r.Get().Equal(before), r.lastErr
}

// Run fetches the keys at once and then every 10 minutes, until ctx ends, and returns nil.
func (r *RemoteKeys) Run(ctx context.Context) error {
	ticker := time.NewTicker(fetchInterval)
	defer ticker.Stop()
	for {
		r.mu.Lock()
		r.fetch(ctx)
		r.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// fetch replaces the keys, and keeps them if it fails. The caller holds mu.
func (r *RemoteKeys) fetch(ctx context.Context) {
	logger := klog.FromContext(ctx)
	// Others wait for the keys too, so the end of one request's context must not end the fetch.
	set, unusable, err := r.read(context.WithoutCancel(ctx))
	r.lastFetch = r.clock.Now()
	switch {
	case err != nil:
		err = fmt.Errorf("keys of issuer %s cannot be fetched: %w", r.issuer, err)
		if r.lastErr == nil || r.lastErr.Error() != err.Error() {
			logger.Error(err, "Kept the last keys of an issuer", "issuer", r.issuer)
		}
	default:
		if !set.Equal(r.Get()) {
			logger.Info("Fetched the keys of an issuer", "issuer", r.issuer, "keys", len(set.Verification()))
		}
		if unusable != nil && (r.unusable == nil || r.unusable.Error() != unusable.Error()) {
			logger.Error(unusable, "Left out keys of an issuer that cannot be used", "issuer", r.issuer)
		}
		r.unusable = unusable
		r.current.Store(set) // Equal compares key ids, and another key may have the same id
	}
	r.lastErr = err
}

// read returns the keys, and an error that says which of them cannot be used.
func (r *RemoteKeys) read(ctx context.Context) (set *keys.Set, unusable, err error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	var config struct {
		Issuer  string `json:"issuer"`
		JWKSURI string `json:"jwks_uri"`
	}
	body, err := r.get(ctx, strings.TrimSuffix(r.issuer, "/")+ConfigPath)
	if err != nil {
		return nil, nil, err
	}
	if json.Unmarshal(body, &config) != nil {
		return nil, nil, errors.New("its discovery document is not a JSON document of that kind")
	}
	if config.Issuer != r.issuer {
		return nil, nil, fmt.Errorf("its discovery document is that of issuer %q", config.Issuer)
	}
	if found, err := url.Parse(config.JWKSURI); err != nil || found.Scheme != https {
		return nil, nil, fmt.Errorf("its jwks_uri %q is not an https URL", config.JWKSURI)
	}
	if body, err = r.get(ctx, config.JWKSURI); err != nil {
		return nil, nil, err
	}
	found, failures, err := keys.ParseJWKS(body)
	unusable = errors.Join(failures...)
	switch {
	case err != nil:
		return nil, nil, fmt.Errorf("%s: %w", config.JWKSURI, err)
	case len(found) == 0 && unusable != nil:
		return nil, nil, fmt.Errorf("it publishes no usable key: %w", unusable)
	case len(found) == 0:
		return nil, nil, errors.New("it publishes no usable key")
	}
	return keys.NewVerificationSet(found...), unusable, nil
}

func (r *RemoteKeys) get(ctx context.Context, from string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return nil, err
	}
	response, err := r.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %d", from, response.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxDocument))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", from, err)
	}
	return body, nil
}
